"""MIMIC-IV's local times as UTC.

MIMIC-IV shifts dates into the years 2110 to 2201 and keeps the wall clock of Boston, summer time included.
polars stops applying summer time at the year 2100, so its rules are taken from the standard library, which
follows the zone's rule for ever.
"""

from __future__ import annotations

from calendar import isleap
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
from numpy.typing import NDArray

ZONE = "America/New_York"
"""Zone of the Beth Israel Deaconess Medical Center."""
FIRST_YEAR, LAST_YEAR = 1990, 2260
LAST_BY_LIST = 2038
"""Before this year the zone's changes are listed one by one, later ones follow its rule."""


@lru_cache(maxsize=4)
def _summers(zone: str) -> tuple[NDArray[np.int64], NDArray[np.int64], int, int]:
    """Return, by year, the wall times between which every moment is summer time, and both offsets.

    All are microseconds, the wall times since 1970.

    A wall time that occurs twice in autumn, or never in spring, is read as standard time, as PostgreSQL does,
    with which MIMIC-IV on FHIR was made.
    """
    rules = ZoneInfo(zone)

    def offset(moment: datetime) -> timedelta:
        return moment.replace(tzinfo=UTC).astimezone(rules).utcoffset() or timedelta()

    winter = offset(datetime(2150, 1, 1))  # noqa: DTZ001 - offset() sets UTC
    summer = offset(datetime(2150, 7, 1))  # noqa: DTZ001
    starts, ends = [], []
    found: dict[object, tuple[timedelta, timedelta]] = {}
    for year in range(FIRST_YEAR, LAST_YEAR):
        january = datetime(year, 1, 1)  # noqa: DTZ001
        # A rule for ever gives years of the same weekdays the same days.
        calendar = (january.weekday(), isleap(year)) if year >= LAST_BY_LIST else year
        if calendar not in found:
            july = datetime(year, 7, 1)  # noqa: DTZ001
            spring = _change(january + timedelta(days=1), july, offset) + summer
            autumn = _change(july, datetime(year, 12, 30), offset) + winter  # noqa: DTZ001
            found[calendar] = (spring - january, autumn - january)
        spring_after, autumn_after = found[calendar]
        starts.append(january + spring_after)
        ends.append(january + autumn_after)
    first, last = (np.array(moments, dtype="datetime64[us]").astype(np.int64) for moments in (starts, ends))
    tick = timedelta(microseconds=1)
    return first, last, winter // tick, summer // tick


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


def _to_utc(walls: pl.Series, zone: str = ZONE) -> pl.Series:
    """Convert a series as :func:`to_utc` does.

    NumPy looks up each year's summer in a third of the time that polars takes.
    """
    starts, ends, winter, summer = _summers(zone)
    unknown = walls.is_null().to_numpy()
    wall = walls.to_physical().fill_null(0).to_numpy()
    row = walls.dt.year().fill_null(0).to_numpy() - FIRST_YEAR
    # Years outside the table have no time.
    unknown |= (row < 0) | (row >= LAST_YEAR - FIRST_YEAR)
    row = np.where(unknown, 0, row)
    in_summer = (wall >= starts[row]) & (wall < ends[row])
    utc = pl.Series(walls.name, wall - np.where(in_summer, summer, winter)).cast(pl.Datetime("us", "UTC"))
    return utc.set(pl.Series(unknown), None) if unknown.any() else utc
