"""Onset of sepsis by Sepsis-3 (Singer et al. 2016; Seymour et al. 2016).

Suspected infection is an antibiotic and a culture close together; sepsis is a rise of SOFA by two or more
around it. SOFA is made from catalogue features and, where the source has them, from intervals of organ
support: without these the circulation's part is at most 1, and the lungs' part exceeds 2 only where
mechanical ventilation is among the events.
"""

from __future__ import annotations

import polars as pl

BEFORE_HOURS, AFTER_HOURS = 48, 24
"""Window around the suspicion in which SOFA must rise."""
STEPS: dict[str, tuple[tuple[float, int], ...]] = {
    "platelets": ((150, 1), (100, 2), (50, 3), (20, 4)),
    "mean_bp": ((70, 1),),
    "mean_bp_invasive": ((70, 1),),
    "gcs_total": ((15, 1), (13, 2), (10, 3), (6, 4)),
}
"""Points for values below the bound (Vincent et al. 1996)."""
RISING: dict[str, tuple[tuple[float, int], ...]] = {
    "bilirubin_total": ((1.2, 1), (2, 2), (6, 3), (12, 4)),
    "creatinine": ((1.2, 1), (2, 2), (3.5, 3), (5, 4)),
}
"""Points for values at or above the bound, in mg/dL."""
VASOACTIVE: dict[str, tuple[tuple[float, int], ...]] = {
    "dopamine": ((0, 2), (5, 3), (15, 4)),
    "dobutamine": ((0, 2),),
    "epinephrine": ((0, 3), (0.1, 4)),
    "norepinephrine": ((0, 3), (0.1, 4)),
}
"""Points for rates above the bound, in microgram per kilogram and minute."""
VENTILATION = "ventilation"
URINE = ((500, 3), (200, 4))
"""Points for millilitres of 24 hours below the bound."""
PARTS = {
    "platelets": "coagulation",
    "mean_bp": "circulation",
    "mean_bp_invasive": "circulation",
    "gcs_total": "brain",
    "bilirubin_total": "liver",
    "creatinine": "kidney",
}


def suspicion_times(antibiotics: pl.DataFrame, cultures: pl.DataFrame) -> pl.DataFrame:
    """Return ``subject_id``, ``time`` of suspected infections: the earlier of antibiotic and culture.

    A culture within 24 hours after the antibiotic, or an antibiotic within 72 hours after the culture, makes
    a pair. Both frames hold ``subject_id`` and ``time``.
    """
    pairs = antibiotics.select("subject_id", given="time").join(
        cultures.select("subject_id", taken="time"), on="subject_id"
    )
    gap = pl.col("taken") - pl.col("given")
    return (
        pairs.filter((gap <= pl.duration(hours=24)) & (gap >= pl.duration(hours=-72)))
        .select("subject_id", pl.min_horizontal("given", "taken").alias("time"))
        .unique()
        .sort("subject_id", "time")
    )


def sofa_points(events: pl.DataFrame, supports: pl.DataFrame | None = None) -> pl.DataFrame:
    """Return ``subject_id``, ``time``, ``part`` and ``points`` of everything that SOFA looks at.

    ``supports`` are intervals of organ support: ``subject_id``, ``start``, ``end``, ``kind`` (a drug of
    :data:`VASOACTIVE` or ``ventilation``) and ``rate``.
    """
    value = pl.col("numeric_value")
    points = pl.lit(0)
    for code, steps in STEPS.items():
        for bound, score in steps:
            points = pl.when((pl.col("code") == code) & (value < bound)).then(score).otherwise(points)
    for code, steps in RISING.items():
        for bound, score in steps:
            points = pl.when((pl.col("code") == code) & (value >= bound)).then(score).otherwise(points)
    scored = events.filter(pl.col("code").is_in(list(PARTS))).select(
        "subject_id",
        "time",
        pl.col("code").replace_strict(PARTS, return_dtype=pl.String).alias("part"),
        points.cast(pl.Int32).alias("points"),
    )
    parts = [scored, _respiration(events, supports), _urine(events)]
    if supports is not None:
        parts.append(_circulation(supports))
    return pl.concat(parts)


def _circulation(supports: pl.DataFrame) -> pl.DataFrame:
    """Return points of vasoactive drugs, at every hour of the infusion and at its end."""
    points = pl.lit(0)
    for kind, steps in VASOACTIVE.items():
        for bound, score in steps:
            points = (
                pl.when((pl.col("kind") == kind) & (pl.col("rate") > bound)).then(score).otherwise(points)
            )
    last = (pl.col("end") - pl.col("start")).dt.total_hours().clip(0)
    return (
        supports.filter(pl.col("kind").is_in(list(VASOACTIVE)))
        .select(
            "subject_id",
            "start",
            points.cast(pl.Int32).alias("points"),
            pl.int_ranges(0, last + 1).alias("hour"),
        )
        .explode("hour", empty_as_null=False)
        .select(
            "subject_id",
            (pl.col("start") + pl.duration(hours=pl.col("hour"))).alias("time"),
            pl.lit("circulation").alias("part"),
            "points",
        )
    )


def _urine(events: pl.DataFrame) -> pl.DataFrame:
    """Return points of little urine, where it had been charted for 24 hours."""
    total = pl.col("volume").rolling_sum_by("time", "24h", closed="right").over("subject_id")
    first = pl.col("time").rolling_min_by("time", "48h", closed="both").over("subject_id")
    points = pl.lit(0)
    for bound, score in URINE:
        points = pl.when(pl.col("total") < bound).then(score).otherwise(points)
    return (
        events.filter(pl.col("code") == "urine_output")
        .select("subject_id", "time", volume=pl.col("numeric_value").cast(pl.Float64))
        .sort("subject_id", "time")
        .with_columns(total.alias("total"), first.alias("first"))
        .filter(pl.col("time") - pl.col("first") >= pl.duration(hours=24))
        .select("subject_id", "time", pl.lit("kidney").alias("part"), points.cast(pl.Int32).alias("points"))
    )


def _respiration(events: pl.DataFrame, supports: pl.DataFrame | None) -> pl.DataFrame:
    def of(code: str, name: str) -> pl.DataFrame:
        chosen = events.filter(pl.col("code") == code)
        return chosen.select("subject_id", "time", pl.col("numeric_value").cast(pl.Float64).alias(name)).sort(
            "time"
        )

    joined = (
        of("pao2", "oxygen")
        .join_asof(
            of("fio2", "fraction"), on="time", by="subject_id", tolerance="12h", check_sortedness=False
        )
        .join_asof(
            of("mechanical_ventilation", "ventilated"),
            on="time",
            by="subject_id",
            tolerance="12h",
            check_sortedness=False,
        )
        .filter(pl.col("fraction").is_not_null())
        .with_columns((pl.col("ventilated") == 1).fill_null(value=False))
    )
    if supports is not None:
        spans = (
            supports.filter(pl.col("kind") == VENTILATION)
            .select("subject_id", pl.col("start").alias("time"), until="end")
            .sort("time")
        )
        joined = joined.join_asof(spans, on="time", by="subject_id", check_sortedness=False).with_columns(
            pl.col("ventilated") | (pl.col("until") >= pl.col("time")).fill_null(value=False)
        )
    ratio = pl.col("oxygen") / pl.col("fraction")
    points = (
        pl.when(pl.col("ventilated") & (ratio < 100))
        .then(4)
        .when(pl.col("ventilated") & (ratio < 200))
        .then(3)
        .when(ratio < 300)
        .then(2)
        .when(ratio < 400)
        .then(1)
        .otherwise(0)
    )
    return joined.select(
        "subject_id", "time", pl.lit("respiration").alias("part"), points.cast(pl.Int32).alias("points")
    )


def sofa_by_hour(events: pl.DataFrame, supports: pl.DataFrame | None = None) -> pl.DataFrame:
    """Return ``subject_id``, ``hour``, ``sofa``: the sum of each part's worst points of the last 24 hours.

    Hours without any value of the last 24 have no row.
    """
    hourly = (
        sofa_points(events, supports)
        .with_columns(pl.col("time").dt.truncate("1h").dt.offset_by("1h").alias("hour"))
        .group_by("subject_id", "part", "hour")
        .agg(pl.col("points").max())
    )
    spread = (
        hourly.with_columns(pl.int_ranges(0, 24).alias("later"))
        .explode("later")
        .with_columns((pl.col("hour") + pl.duration(hours=pl.col("later"))).alias("hour"))
        .group_by("subject_id", "part", "hour")
        .agg(pl.col("points").max())
    )
    return (
        spread.group_by("subject_id", "hour")
        .agg(pl.col("points").sum().alias("sofa"))
        .sort("subject_id", "hour")
    )


def onset_times(
    events: pl.DataFrame, suspicions: pl.DataFrame, supports: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Return ``subject_id``, ``time`` of every hour at which SOFA has risen by 2 around a suspicion.

    The rise is against the lowest SOFA of the window before that hour; where the window begins with the first
    values, against 0, as Sepsis-3 takes for patients without known dysfunction.
    """
    window = (
        sofa_by_hour(events, supports)
        .join(suspicions.select("subject_id", suspected="time"), on="subject_id")
        .filter(
            (pl.col("hour") >= pl.col("suspected") - pl.duration(hours=BEFORE_HOURS))
            & (pl.col("hour") <= pl.col("suspected") + pl.duration(hours=AFTER_HOURS))
        )
        .sort("subject_id", "suspected", "hour")
    )
    stay = ["subject_id", "suspected"]
    earlier = pl.col("sofa").cum_min().shift(1).over(stay).fill_null(0)
    return (
        window.with_columns(earlier.alias("lowest"))
        .filter(pl.col("sofa") - pl.col("lowest") >= 2)
        .select("subject_id", pl.col("hour").alias("time"))
        .unique()
        .sort("subject_id", "time")
    )
