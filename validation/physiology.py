"""Contradictions between features of one patient at one moment.

A row is called contradictory only when no reading of the moment's values can be right: two
pressures taken by cuff and by arterial line at the same minute may differ, so a systolic value
is refused only when it lies at or below *every* diastolic value of that moment.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True, kw_only=True)
class Ordered:
    """``upper`` must exceed ``lower`` by more than ``-tolerance`` (canonical units)."""

    upper: str
    lower: str
    tolerance: float = 0.0
    strict: bool = True


@dataclass(frozen=True, kw_only=True)
class Total:
    """``total`` must be the sum of ``parts`` where all of them were taken at that moment."""

    total: str
    parts: tuple[str, ...]
    tolerance: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Contradictions:
    """The cross-feature rules, by catalogue feature keys."""

    ordered: tuple[Ordered, ...] = ()
    totals: tuple[Total, ...] = ()

    @property
    def features(self) -> frozenset[str]:
        """Every feature that a rule names."""
        pairs = {name for rule in self.ordered for name in (rule.upper, rule.lower)}
        sums = {name for rule in self.totals for name in (rule.total, *rule.parts)}
        return frozenset(pairs | sums)


def _pressures(site: str) -> tuple[Ordered, ...]:
    """Return the order of pressures taken in one way; cuff and arterial line are never compared."""
    high, mean, low = (f"{name}_bp{site}" for name in ("systolic", "mean", "diastolic"))
    return (
        Ordered(upper=high, lower=low),
        Ordered(upper=high, lower=mean, tolerance=5.0),
        Ordered(upper=mean, lower=low, tolerance=5.0),
    )


PAIRS = Contradictions(
    ordered=(
        *_pressures(""),
        *_pressures("_invasive"),
        Ordered(upper="bilirubin_total", lower="bilirubin_direct", tolerance=0.3),
    ),
    totals=(Total(total="gcs_total", parts=("gcs_eye", "gcs_verbal", "gcs_motor")),),
)
"""Blood pressure order (mean within 5 mm[Hg], for rounding and cuff error), direct bilirubin as a part of
the total (within 0.3 mg/dL of assay error), and GCS = eye + verbal + motor (Teasdale and Jennett 1974)."""


def contradictions(events: pl.DataFrame, good: pl.Series, rules: Contradictions = PAIRS) -> pl.Series:
    """Return which rows are contradicted by others of the same patient and time.

    Parameters
    ----------
    events
        Rows of the ``Events`` contract.
    good
        Boolean, one a row: rows that no earlier rule refused. Refused rows are no witnesses.

    Returns
    -------
    polars.Series
        Boolean, one a row, in row order.
    """
    involved = good & events["code"].is_in(list(rules.features)) & events["numeric_value"].is_not_null()
    rows = (
        events.lazy()
        .select("subject_id", "time", "code", "numeric_value", "derived")
        .with_row_index("row")
        .filter(involved)
    )
    flagged = [_order_broken(rows, rule) for rule in rules.ordered]
    flagged += [_total_broken(rows, rule) for rule in rules.totals]
    found = pl.concat(pl.collect_all(flagged))["row"] if flagged else pl.Series("row", [], pl.UInt32)
    broken = pl.Series("contradiction", [False], dtype=pl.Boolean).new_from_index(0, events.height)
    return broken.scatter(found.unique(), True) if found.len() else broken


def _of(rows: pl.LazyFrame, feature: str) -> pl.LazyFrame:
    return rows.filter(pl.col("code") == feature)


def _order_broken(rows: pl.LazyFrame, rule: Ordered) -> pl.LazyFrame:
    upper, lower = _of(rows, rule.upper), _of(rows, rule.lower)
    moment = ["subject_id", "time"]
    highest = upper.group_by(moment).agg(pl.col("numeric_value").max().alias("witness"))
    lowest = lower.group_by(moment).agg(pl.col("numeric_value").min().alias("witness"))

    def broken(above: pl.Expr, below: pl.Expr) -> pl.Expr:
        limit = below - rule.tolerance
        return above <= limit if rule.strict and not rule.tolerance else above < limit

    value, witness = pl.col("numeric_value"), pl.col("witness")
    too_low = upper.join(lowest, on=moment).filter(broken(value, witness)).select("row")
    too_high = lower.join(highest, on=moment).filter(broken(witness, value)).select("row")
    return pl.concat([too_low, too_high])


def _total_broken(rows: pl.LazyFrame, rule: Total) -> pl.LazyFrame:
    """Find totals that differ from their parts; moments with several values of a part are left alone."""
    moment = ["subject_id", "time"]
    parts = (
        rows.filter(pl.col("code").is_in(list(rule.parts)))
        .group_by(moment)
        .agg(
            pl.col("numeric_value").sum().alias("sum"),
            pl.len().alias("n"),
            pl.col("code").n_unique().alias("kinds"),
        )
        .filter((pl.col("n") == len(rule.parts)) & (pl.col("kinds") == len(rule.parts)))
    )
    off = (pl.col("numeric_value") - pl.col("sum")).abs() > rule.tolerance
    return _of(rows, rule.total).join(parts, on=moment).filter(off).select("row")
