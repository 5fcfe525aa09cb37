"""What a night looks like in numbers: aggregates by feature, source and ward, never a row."""

from validation.profiles.features import CADENCE_HOURS
from validation.profiles.night import ShardProfile, merge_profiles, profile_night, profile_shard
from validation.profiles.places import NO_WARD, SMALL_WARDS, UNKNOWN, count_refusals
from validation.profiles.tables import (
    SMALLEST_GROUP,
    SMALLEST_WARD,
    Profiles,
    describe_comparison,
    empty_drift,
)

__all__ = [
    "CADENCE_HOURS",
    "NO_WARD",
    "SMALLEST_GROUP",
    "SMALLEST_WARD",
    "SMALL_WARDS",
    "UNKNOWN",
    "Profiles",
    "ShardProfile",
    "count_refusals",
    "describe_comparison",
    "empty_drift",
    "merge_profiles",
    "profile_night",
    "profile_shard",
]
