"""A night's profile: shard by shard, then together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from validation.equations import Counts
from validation.profiles.features import (
    CADENCE_HOURS,
    UNIT_REASONS,
    FeatureCounts,
    add_features,
    count_features,
    profile_features,
)
from validation.profiles.places import (
    count_refusals,
    count_sources,
    count_wards,
    profile_sources,
    profile_wards,
)
from validation.profiles.tables import Profiles, empty_drift


@dataclass(frozen=True, kw_only=True)
class ShardProfile:
    """Counts of one shard; small whatever the shard's size, and additive, since subjects are not split.

    Attributes
    ----------
    numbers
        ``samples``, ``subjects`` (of samples), ``served`` (samples of a patient with events), ``events``,
        ``recordings``, ``images``.
    features, sources, wards
        See :mod:`validation.profiles.features` and :mod:`validation.profiles.places`.
    """

    numbers: Mapping[str, int]
    features: FeatureCounts
    sources: pl.DataFrame
    wards: pl.DataFrame


def profile_shard(
    *,
    events: pl.DataFrame,
    encounters: pl.DataFrame,
    samples: pl.DataFrame,
    recordings: pl.DataFrame,
    images: pl.DataFrame,
    cadence: Mapping[str, float] | None = None,
) -> ShardProfile:
    """Count one shard.

    Parameters
    ----------
    events, recordings, images, samples
        Accepted rows and samples of the shard's subjects.
    encounters
        May hold other subjects' too.
    cadence
        Hours within which a value is expected, by feature; :data:`CADENCE_HOURS` when None.
    """
    own = encounters.join(samples.select("encounter_id").unique(), on="encounter_id", how="semi")
    refs = pl.concat([frame.select("source_ref") for frame in (events, recordings, images)])
    served = samples.join(events.select("subject_id").unique(), on="subject_id", how="semi")
    return ShardProfile(
        numbers={
            "samples": samples.height,
            "subjects": samples["subject_id"].n_unique(),
            "served": served.height,
            "events": events.height,
            "recordings": recordings.height,
            "images": images.height,
        },
        features=count_features(events, own, samples, CADENCE_HOURS if cadence is None else cadence),
        sources=count_sources(refs),
        wards=count_wards(events, own, samples, recordings, images),
    )


def merge_profiles(
    shards: Sequence[ShardProfile],
    *,
    encounters: int,
    refusals: pl.DataFrame,
    counts: Counts,
    unmapped: pl.DataFrame | None = None,
    cadence: Mapping[str, float] | None = None,
    drift: pl.DataFrame | None = None,
) -> Profiles:
    """Put the shards of a night together.

    Parameters
    ----------
    encounters
        In the census.
    refusals
        Result of :func:`count_refusals` over every stage.
    counts
        What the night counted so far; ``pulled``, ``accepted``, ``quarantined``, ``eligible`` and
        ``skipped`` are used.
    unmapped
        ``n`` a coding that the catalogue does not use.
    cadence
        As for :func:`profile_shard`.
    drift
        Result of :func:`validation.drift.compare_night`, to be kept with the profiles.
    """
    total = {name: sum(shard.numbers[name] for shard in shards) for name in shards[0].numbers}
    features = profile_features(
        add_features([shard.features for shard in shards]),
        refusals,
        total["samples"],
        CADENCE_HOURS if cadence is None else cadence,
    )
    units = int(refusals.filter(pl.col("reason").is_in(UNIT_REASONS))["n"].sum())
    rows = total["events"] + int(refusals["n"].sum())
    night = {
        "pulled": counts.pulled,
        "accepted": counts.accepted,
        "quarantined": counts.quarantined,
        "quarantined_share": counts.quarantined_share,
        "lost": abs(counts.pulled - counts.accepted - counts.quarantined),
        "encounters": encounters,
        "eligible": counts.eligible,
        "samples": total["samples"],
        "skipped_share": counts.skipped_share,
        "samples_with_events_share": total["served"] / total["samples"] if total["samples"] else 0.0,
        "subjects": total["subjects"],
        "events": total["events"],
        "features": features.filter(pl.col("n_events") > 0).height,
        "recordings": total["recordings"],
        "images": total["images"],
        "unknown_unit_share": units / rows if rows else 0.0,
        "unmapped": int(unmapped["n"].sum()) if unmapped is not None and unmapped.height else 0,
        "unmapped_codes": unmapped.height if unmapped is not None else 0,
    }
    reasons = refusals.group_by("stage", "reason").agg(pl.col("n").sum())
    return Profiles(
        night=pl.DataFrame({name: [number] for name, number in night.items()}),
        features=features,
        sources=profile_sources([shard.sources for shard in shards], refusals),
        wards=profile_wards([shard.wards for shard in shards]),
        quarantine=reasons.sort("n", "stage", "reason", descending=[True, False, False]),
        drift=empty_drift() if drift is None else drift,
    )


def profile_night(
    *,
    events: pl.DataFrame,
    encounters: pl.DataFrame,
    samples: pl.DataFrame,
    quarantine: pl.DataFrame,
    recordings: pl.DataFrame,
    images: pl.DataFrame,
    counts: Counts | None = None,
    unmapped: pl.DataFrame | None = None,
    cadence: Mapping[str, float] | None = None,
    drift: pl.DataFrame | None = None,
) -> Profiles:
    """Aggregate the tables of a night that fits into memory.

    Parameters
    ----------
    quarantine
        Refused rows of every stage.
    counts
        As for :func:`merge_profiles`; when None, taken from the tables as far as these can tell.
    events, encounters, samples, recordings, images, unmapped, cadence, drift
        As for :func:`profile_shard` and :func:`merge_profiles`.
    """
    if counts is None:
        whole = int(quarantine["whole"].sum()) if quarantine.height else 0
        came = sum(frame["source_ref"].n_unique() for frame in (events, recordings, images))
        counts = Counts(pulled=came + whole, accepted=came, quarantined=whole, eligible=samples.height)
    shard = profile_shard(
        events=events,
        encounters=encounters,
        samples=samples,
        recordings=recordings,
        images=images,
        cadence=cadence,
    )
    return merge_profiles(
        [shard],
        encounters=encounters.height,
        refusals=count_refusals(quarantine),
        counts=counts,
        unmapped=unmapped,
        cadence=cadence,
        drift=drift,
    )
