"""Are the events of two sources the same? By feature, value and time, with a cause for each difference."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

KEY = ("subject_id", "code", "time", "numeric_value")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How two tables of events relate.

    Attributes
    ----------
    by_feature
        ``code``, ``equal``, ``only_left``, ``only_right``, ``other_availability`` (equal events that one side
        knew at another time).
    subjects
        Number of subjects with events on both sides.
    differences
        ``side`` (left or right), ``code``, ``origin`` (of the event), ``n``, ``cause`` (null: unexplained).
    """

    by_feature: pl.DataFrame
    differences: pl.DataFrame
    subjects: int

    @property
    def unexplained(self) -> int:
        """Number of differing events without a cause."""
        return int(self.differences.filter(pl.col("cause").is_null())["n"].sum())

    @property
    def equal(self) -> int:
        """Number of equal events."""
        return int(self.by_feature["equal"].sum())


def compare_events(
    left: pl.DataFrame, right: pl.DataFrame, *, causes: dict[tuple[str, str], str] | None = None
) -> Comparison:
    """Compare events by subject, feature, time and value.

    Encounters and references are named differently by each source and are not compared.

    Parameters
    ----------
    left, right
        Rows of the ``Events`` contract with a further column ``origin``: the table or file of the event.
    causes
        Why events of one side and origin have no counterpart: ``(side, origin) -> cause``.
    """
    key = list(KEY)
    both = left.select(*key, "available_time").join(
        right.select(*key, known="available_time"), on=key, how="inner", nulls_equal=True
    )
    only = {
        "left": left.join(right, on=key, how="anti", nulls_equal=True),
        "right": right.join(left, on=key, how="anti", nulls_equal=True),
    }
    counted = both.group_by("code").agg(
        pl.len().cast(pl.Int64).alias("equal"),
        (pl.col("available_time") != pl.col("known")).sum().cast(pl.Int64).alias("other_availability"),
    )
    for side, rows in only.items():
        counted = counted.join(
            rows.group_by("code").agg(pl.len().cast(pl.Int64).alias(f"only_{side}")),
            on="code",
            how="full",
            coalesce=True,
        )
    by_feature = (
        counted.fill_null(0)
        .select("code", "equal", "only_left", "only_right", "other_availability")
        .sort("code")
    )
    reasons = pl.DataFrame(
        [(side, origin, cause) for (side, origin), cause in (causes or {}).items()],
        schema={"side": pl.String, "origin": pl.String, "cause": pl.String},
        orient="row",
    )
    differences = (
        pl.concat(
            [
                rows.group_by("code", "origin").agg(pl.len().alias("n")).with_columns(side=pl.lit(side))
                for side, rows in only.items()
            ]
        )
        .join(reasons, on=["side", "origin"], how="left")
        .select("side", "code", "origin", "n", "cause")
        .sort("side", "code", "origin")
    )
    return Comparison(
        by_feature=by_feature,
        differences=differences,
        subjects=len(set(left["subject_id"]) & set(right["subject_id"])),
    )
