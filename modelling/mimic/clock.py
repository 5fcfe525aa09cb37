"""MIMIC-IV's local times as UTC.

MIMIC-IV shifts dates into the years 2110 to 2201 and keeps the wall clock of Boston, summer time included.
polars stops applying summer time at the year 2100, so its rules are taken from the standard library, which
follows the zone's rule for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import polars as pl

ZONE = "America/New_York"
"""Zone of the Beth Israel Deaconess Medical Center."""
FIRST_YEAR, LAST_YEAR = 1990, 2260


@lru_cache(maxsize=4)
def _summers(zone: str) -> tuple[pl.Series, pl.Series, timedelta, timedelta]:
    """Return, by year, the wall times between which every moment is summer time, and both offsets.

    A wall time that occurs twice in autumn, or never in spring, is read as standard time, as PostgreSQL does,
    with which MIMIC-IV on FHIR was made.
    """
    rules = ZoneInfo(zone)

    def offset(moment: datetime) -> timedelta:
        return moment.replace(tzinfo=UTC).astimezone(rules).utcoffset() or timedelta()

    winter = offset(datetime(2150, 1, 1))  # noqa: DTZ001 - offset() sets UTC
    summer = offset(datetime(2150, 7, 1))  # noqa: DTZ001
    starts, ends = [], []
    for year in range(FIRST_YEAR, LAST_YEAR):
        starts.append(_change(datetime(year, 1, 2), datetime(year, 7, 1), offset) + summer)  # noqa: DTZ001
        ends.append(_change(datetime(year, 7, 1), datetime(year, 12, 30), offset) + winter)  # noqa: DTZ001
    times = pl.Datetime("us")
    return pl.Series(starts, dtype=times), pl.Series(ends, dtype=times), winter, summer


def _change(low: datetime, high: datetime, offset: Callable[[datetime], timedelta]) -> datetime:
    """Return the UTC minute at which the offset changes between two moments; ``low`` where it does not."""
    before = offset(low)
    if offset(high) == before:
        return low
    while high - low > timedelta(minutes=1):
        middle = low + ((high - low) // 2)
        middle = middle.replace(second=0, microsecond=0)
        if middle == low:
            break
        low, high = (middle, high) if offset(middle) == before else (low, middle)
    return high.replace(second=0, microsecond=0)


def to_utc(local: pl.Expr, *, zone: str = ZONE) -> pl.Expr:
    """Return wall times (Datetime without zone) as ``datetime[us, UTC]``.

    Examples
    --------
    >>> july = datetime(2180, 7, 23, 12, 36)
    >>> pl.select(to_utc(pl.lit(july))).item().isoformat()
    '2180-07-23T16:36:00+00:00'
    """
    return local.cast(pl.Datetime("us")).map_batches(
        lambda walls: _to_utc(walls, zone), return_dtype=pl.Datetime("us", "UTC"), is_elementwise=True
    )


def _to_utc(walls: pl.Series, zone: str) -> pl.Series:
    """Convert a series; on series each step runs once, while an expression repeats shared steps."""
    starts, ends, winter, summer = _summers(zone)
    year = walls.dt.year()
    # Looking up by position is many times faster than by key; years outside the table have no time.
    row = (year - FIRST_YEAR).set(~year.is_between(FIRST_YEAR, LAST_YEAR - 1), None).cast(pl.UInt32)
    in_summer = (walls >= starts.gather(row)) & (walls < ends.gather(row))
    frame = pl.DataFrame({"walls": walls, "summer": in_summer})
    offset = pl.when(pl.col("summer")).then(summer).when(~pl.col("summer")).then(winter)
    return frame.select((pl.col("walls") - offset).dt.replace_time_zone("UTC"))["walls"]
