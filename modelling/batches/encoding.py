"""What is learnt from training data before any network: vocabulary, scales, bins. Serialised as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self

import numpy as np
import polars as pl

from modelling.batches.settings import EncodingSettings
from modelling.batches.tokens import observed_values, windowed
from modelling.cohorts.visibility import hours_between, sample_keys
from modelling.errors import EncodingError

CATEGORICAL = "categorical"
BIN_QUANTILES = tuple(round(0.05 + 0.1 * step, 2) for step in range(10))
WINDOW_QUANTILES = (0.2, 0.4, 0.6, 0.8)


class CatalogueLike(Protocol):
    """The part of :class:`modelling.catalogue.Catalogue` that an encoding reads."""

    @property
    def features(self) -> pl.DataFrame:
        """One row a feature."""

    @property
    def levels(self) -> pl.DataFrame:
        """One row a level of a categorical or ordinal feature."""

    @property
    def digest(self) -> str:
        """Version of the catalogue."""


# The 17 variables of Harutyunyan et al. 2019 (doi 10.1038/s41597-019-0103-9): one-hot width (0 = continuous)
# and the normal value with which the benchmark fills what was never observed. The widths of the benchmark's
# discretiser count two spellings of each GCS level, which makes 76 channels; catalogue levels use the first.
BENCHMARK: dict[str, tuple[int, float]] = {
    "Capillary refill rate": (2, 0.0),
    "Diastolic blood pressure": (0, 59.0),
    "Fraction inspired oxygen": (0, 0.21),
    "Glascow coma scale eye opening": (8, 4.0),
    "Glascow coma scale motor response": (12, 6.0),
    "Glascow coma scale total": (13, 15.0),
    "Glascow coma scale verbal response": (12, 5.0),
    "Glucose": (0, 128.0),
    "Heart Rate": (0, 86.0),
    "Height": (0, 170.0),
    "Mean blood pressure": (0, 77.0),
    "Oxygen saturation": (0, 98.0),
    "Respiratory rate": (0, 19.0),
    "Systolic blood pressure": (0, 118.0),
    "Temperature": (0, 36.6),
    "Weight": (0, 81.0),
    "pH": (0, 7.4),
}
# Lowest level of each one-hot variable, so that level - lowest is the column.
_LOWEST = {
    "Capillary refill rate": 0,
    "Glascow coma scale eye opening": 1,
    "Glascow coma scale motor response": 1,
    "Glascow coma scale total": 3,
    "Glascow coma scale verbal response": 1,
}


@dataclass(frozen=True, kw_only=True)
class FeatureEncoding:
    """How one catalogue feature becomes tokens.

    Attributes
    ----------
    code
        Catalogue feature key.
    categorical
        Whether levels are names rather than numbers.
    logarithm
        Whether ``log1p`` comes before standardisation.
    mean, standard_deviation
        Of training values (after the logarithm).
    levels
        Level numbers of a categorical feature, ascending.
    bins
        Edges between value bins (MedM2T: percentiles 5, 15, ..., 95 of the subjects' means).
    grid_variable
        Position in :attr:`Encoding.grid`, or -1.
    direction
        ``vital``, ``lab``, ``output``, ``derived`` or ``static``, as the catalogue says.
    samples
        Training samples in which the feature was seen.
    """

    code: str
    categorical: bool
    logarithm: bool
    mean: float
    standard_deviation: float
    levels: tuple[float, ...]
    bins: tuple[float, ...]
    grid_variable: int
    direction: str
    samples: int


@dataclass(frozen=True, kw_only=True)
class GridVariable:
    """One variable of the benchmark grid: ``width`` one-hot columns from ``lowest``, or 0 for a number."""

    name: str
    width: int
    lowest: int
    normal: float
    mean: float
    standard_deviation: float


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Scale of one machine measurement of recordings (an interval, an axis)."""

    name: str
    mean: float
    standard_deviation: float


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Everything that turns table rows into tensors, fitted on training samples only.

    Attributes
    ----------
    settings
        Sizes and windows.
    features
        Vocabulary; token index ``k`` is ``features[k - 1]``, index 0 is never a feature.
    grid
        Variables of the benchmark grid.
    window_edges
        Hours before prediction at which MedM2T's windows part (quantiles of training tokens).
    recording_edges
        The same for recordings.
    age_mean, age_standard_deviation
        Years.
    catalogue_digest
        Version of the catalogue that the vocabulary comes from.
    measurements, report_terms
        Machine measurements and report terms of recordings, where the training data have them.
    """

    settings: EncodingSettings
    features: tuple[FeatureEncoding, ...]
    grid: tuple[GridVariable, ...]
    window_edges: tuple[float, ...]
    recording_edges: tuple[float, ...]
    age_mean: float
    age_standard_deviation: float
    catalogue_digest: str
    measurements: tuple[Measurement, ...] = ()
    report_terms: tuple[str, ...] = ()

    @property
    def codes(self) -> list[str]:
        """Feature keys in vocabulary order."""
        return [feature.code for feature in self.features]

    @property
    def n_tokens(self) -> int:
        """Size of the feature vocabulary with index 0."""
        return len(self.features) + 1

    @property
    def n_levels(self) -> int:
        """Size of the level vocabulary with index 0 (no level, or an unknown one)."""
        return 1 + sum(len(feature.levels) for feature in self.features)

    @property
    def level_offsets(self) -> tuple[int, ...]:
        """First level index of each feature, so that no two features share a level."""
        sizes = [len(feature.levels) for feature in self.features]
        return (
            tuple(int(start) for start in 1 + np.concatenate([[0], np.cumsum(sizes)[:-1]])) if sizes else ()
        )

    @property
    def grid_steps(self) -> int:
        """Number of bins of the grid."""
        return math.ceil(self.settings.grid_hours / self.settings.step_hours)

    @property
    def grid_channels(self) -> int:
        """Columns of the grid: values or one-hot columns, then a mask a variable (76 for the benchmark)."""
        return sum(max(variable.width, 1) for variable in self.grid) + len(self.grid)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Build an encoding from :meth:`to_dict`'s result."""
        values = dict(fields)
        values["settings"] = EncodingSettings.from_dict(values["settings"])
        values["features"] = tuple(
            FeatureEncoding(**{**item, "levels": tuple(item["levels"]), "bins": tuple(item["bins"])})
            for item in values["features"]
        )
        values["grid"] = tuple(GridVariable(**item) for item in values["grid"])
        values["measurements"] = tuple(Measurement(**item) for item in values.get("measurements", ()))
        for name in ("window_edges", "recording_edges", "report_terms"):
            values[name] = tuple(values.get(name, ()))
        return cls(**values)


def ages(samples: pl.DataFrame, encounters: pl.DataFrame) -> pl.DataFrame:
    """Return ``age_years`` at prediction (null when unknown) and ``sex`` of each sample, in order."""
    return (
        samples.select("encounter_id", "prediction_time")
        .with_row_index("row")
        .join(encounters.select("encounter_id", "birth_date", "sex"), on="encounter_id", how="left")
        .sort("row")
        .select(
            ((pl.col("prediction_time").dt.date() - pl.col("birth_date")).dt.total_days() / 365.2425).alias(
                "age_years"
            ),
            pl.col("sex").fill_null("unknown"),
        )
    )


def _scale(values: pl.Series) -> tuple[float, float]:
    mean, deviation = values.mean(), values.std(ddof=0)
    mean = float(mean) if isinstance(mean, int | float) else 0.0
    deviation = float(deviation) if isinstance(deviation, int | float) else 0.0
    return mean, deviation if deviation > 1e-6 else 1.0


def _edges(values: pl.Series, quantiles: Sequence[float]) -> tuple[float, ...]:
    """Return distinct quantiles, ascending; none for an empty series."""
    if values.len() == 0:
        return ()
    return tuple(sorted({float(np.quantile(values.to_numpy(), quantile)) for quantile in quantiles}))


def _feature(
    code: str,
    group: pl.DataFrame,
    levels: tuple[float, ...],
    variable: int,
    direction: str,
    settings: EncodingSettings,
) -> FeatureEncoding:
    raw = group["raw"]
    lowest, skewness = raw.min(), raw.skew()
    logarithm = bool(
        settings.log_skewed
        and not levels
        and isinstance(lowest, float)
        and lowest >= 0
        and skewness is not None
        and skewness > 2
    )
    mean, deviation = _scale(raw.log1p() if logarithm else raw)
    means = group.group_by("subject_id", maintain_order=True).agg(pl.col("raw").mean())["raw"]
    return FeatureEncoding(
        code=code,
        categorical=bool(levels),
        logarithm=logarithm,
        mean=mean,
        standard_deviation=deviation,
        levels=levels,
        bins=() if levels else _edges(means, BIN_QUANTILES),
        grid_variable=variable,
        direction=direction,
        samples=group["row"].n_unique(),
    )


def _findings(
    findings: pl.DataFrame | None, seen: pl.DataFrame, settings: EncodingSettings
) -> tuple[tuple[Measurement, ...], tuple[str, ...]]:
    """Return scales of measurements and the report terms of the training recordings ``seen``."""
    if findings is None or findings.is_empty():
        return (), ()
    own = findings.join(seen.select("recording_id").unique(), on="recording_id", how="semi").sort(
        "name", "recording_id", "value"
    )
    measured = own.filter(pl.col("value").is_not_null() & pl.col("value").is_finite())
    scales = [
        Measurement(name=str(name), mean=scale[0], standard_deviation=scale[1])
        for (name,), group in sorted(measured.partition_by("name", as_dict=True).items())
        if group.height >= settings.min_samples
        for scale in [_scale(group["value"])]
    ]
    terms = (
        own.filter(pl.col("value").is_null())
        .group_by("name")
        .len()
        .filter(pl.col("len") >= settings.min_samples)
    )
    return tuple(scales), tuple(sorted(terms["name"].to_list()))


def fit_encoding(
    *,
    samples: pl.DataFrame,
    encounters: pl.DataFrame,
    events: pl.DataFrame,
    recordings: pl.DataFrame,
    catalogue: CatalogueLike,
    settings: EncodingSettings | None = None,
    findings: pl.DataFrame | None = None,
) -> Encoding:
    """Learn vocabulary, scales, bins and windows from training samples.

    Parameters
    ----------
    samples, encounters, events, recordings
        Tables; only rows visible to these samples are looked at, so pass training samples only.
    catalogue
        Feature kinds, levels and benchmark variables.
    findings
        What machines and readers said of recordings: ``recording_id``, ``name`` and ``value`` (null for a
        term of a report).

    Raises
    ------
    EncodingError
        If there is no sample.
    """
    settings = settings or EncodingSettings()
    if samples.is_empty():
        raise EncodingError("an encoding needs at least one training sample")
    described = {row["feature"]: row for row in catalogue.features.iter_rows(named=True)}
    named_levels = {
        str(key[0]): tuple(sorted(float(level) for level in group["level"].unique()))
        for key, group in catalogue.levels.group_by("feature")
    }
    categorical = [code for code, row in described.items() if row["kind"] == CATEGORICAL]
    values = observed_values(samples, events).filter(
        pl.col("raw").is_finite() & pl.col("code").is_in(list(described))
    )
    if settings.token_window_hours is not None:
        values = windowed(values, window_hours=settings.token_window_hours, categorical=categorical)
    values = values.join(sample_keys(samples).select("row", "subject_id"), on="row", maintain_order="left")
    names = list(BENCHMARK)
    features = []
    for (code,), group in sorted(values.partition_by("code", as_dict=True).items()):
        if group["row"].n_unique() >= settings.min_samples:
            benchmark = described[code].get("benchmark")
            variable = names.index(benchmark) if benchmark in BENCHMARK else -1
            levels = named_levels.get(code, ()) if code in categorical else ()
            direction = str(described[code].get("direction") or "lab")
            features.append(_feature(str(code), group, levels, variable, direction, settings))
    benchmark_of = {feature.code: feature.grid_variable for feature in features}
    placed = values.with_columns(
        pl.col("code").replace_strict(benchmark_of, default=-1, return_dtype=pl.Int64).alias("variable")
    )
    grid = []
    for position, (name, (width, normal)) in enumerate(BENCHMARK.items()):
        seen = placed.filter(pl.col("variable") == position)["raw"]
        mean, deviation = _scale(seen) if width == 0 and seen.len() else (normal, 1.0)
        if width:
            mean, deviation = 0.0, 1.0
        grid.append(
            GridVariable(
                name=name,
                width=width,
                lowest=_LOWEST.get(name, 0),
                normal=normal,
                mean=mean,
                standard_deviation=deviation,
            )
        )
    age_mean, age_deviation = _scale(ages(samples, encounters)["age_years"].drop_nulls())
    gaps = recordings.join(sample_keys(samples), on="subject_id").filter(
        (pl.col("time") <= pl.col("prediction_time"))
        & (pl.col("available_time") <= pl.col("prediction_time"))
    )
    measurements, terms = _findings(findings, gaps, settings)
    return Encoding(
        settings=settings,
        features=tuple(features),
        grid=tuple(grid),
        window_edges=_edges(values["hours"], WINDOW_QUANTILES),
        recording_edges=_edges(
            gaps.select(hours_between(pl.col("prediction_time"), pl.col("time")).alias("hours"))["hours"],
            WINDOW_QUANTILES,
        ),
        age_mean=age_mean,
        age_standard_deviation=age_deviation,
        catalogue_digest=catalogue.digest,
        measurements=measurements,
        report_terms=terms,
    )
