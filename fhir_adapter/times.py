"""FHIR dates and times (https://hl7.org/fhir/R4/datatypes.html#dateTime) as UTC moments.

A time that is only a date, month or year, and a time without a zone where the site names none, are
refused with their own reasons: an hourly model cannot use the first, and the second is ambiguous.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl

from fhir_adapter.errors import Refusal
from validation.reasons import Reason

FULL_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2})(?::([0-9]{2})(\.[0-9]{1,12})?)?"
    r"(Z|[+-][0-9]{2}:[0-9]{2})?"
)
PARTIAL_TIME = re.compile(r"[0-9]{4}(?:-[0-9]{2}(?:-[0-9]{2})?)?")
PLAIN_TIME = (
    # Of the first and the last century some moments lie outside datetime.
    r"^(?:0[1-9]|[1-8][0-9]|9[0-8])[0-9]{2}-[0-9]{2}-[0-9]{2}"
    r"T[0-9]{2}:[0-9]{2}:[0-5][0-9](?:\.[0-9]{1,6})?[+-](?:0[0-9]|1[0-4]):[0-5][0-9]$"
)
"""The shape that the columnar path reads itself: no leap second, no year and no offset that needs a second look."""


def parse_time(value: object, *, element: str, default_zone: ZoneInfo | None) -> datetime:
    """Return a full FHIR dateTime or instant in UTC, to the microsecond.

    Parameters
    ----------
    element
        Name for the refusal's detail.
    default_zone
        Zone of times that carry none; the first of two readings when clocks go back.

    Raises
    ------
    Refusal
        ``time.invalid``, ``time.partial`` or ``time.zone_missing``.

    Examples
    --------
    >>> parse_time("2180-07-23T12:36:00-04:00", element="issued", default_zone=None).isoformat()
    '2180-07-23T16:36:00+00:00'
    """
    if not isinstance(value, str):
        raise Refusal(Reason.TIME_INVALID, element)
    match = FULL_TIME.fullmatch(value)
    if match is None:
        if PARTIAL_TIME.fullmatch(value):
            raise Refusal(Reason.TIME_PARTIAL, element)
        raise Refusal(Reason.TIME_INVALID, element)
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    micro = int(((fraction or ".0")[1:] + "00000")[:6])
    whole = int(second or 0)
    if whole == 60:  # a leap second: the last moment that datetime can hold
        whole, micro = 59, 999_999
    try:
        moment = datetime(int(year), int(month), int(day), int(hour), int(minute), whole, micro)  # noqa: DTZ001
        if zone is None:
            if default_zone is None:
                raise Refusal(Reason.TIME_ZONE_MISSING, element)
            return moment.replace(tzinfo=default_zone, fold=0).astimezone(UTC)
        return (moment - _offset(zone)).replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise Refusal(Reason.TIME_INVALID, element) from None


def _offset(zone: str) -> timedelta:
    if zone == "Z":
        return timedelta()
    hours, minutes = int(zone[1:3]), int(zone[4:6])
    if hours > 14 or minutes > 59:
        raise ValueError("no such offset")
    return timedelta(hours=hours, minutes=minutes) * (1 if zone[0] == "+" else -1)


def parse_date(value: object) -> date | None:
    """Return the calendar date of a FHIR date or dateTime, or None where it has no day.

    Examples
    --------
    >>> parse_date("2111-11-15"), parse_date("2111-11")
    (datetime.date(2111, 11, 15), None)
    """
    if not isinstance(value, str) or not re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:T|$)", value):
        return None
    try:
        return date.fromisoformat(value[:10])
    except ValueError:
        return None


def utc_expression(text: pl.Expr, *, zulu: bool = True) -> pl.Expr:
    """Return the UTC moment of times in their common shape, else null (the exact path judges those).

    Parameters
    ----------
    zulu
        Whether some times end in ``Z``; False saves looking for it.
    """
    offset_given = text.str.replace(r"Z$", "+00:00") if zulu else text
    plain = pl.when(offset_given.str.contains(PLAIN_TIME)).then(offset_given)
    return plain.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="us", time_zone="UTC", strict=False)
