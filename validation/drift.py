"""Has tonight's input moved away from what the model was trained on?

Each sample gives one value a feature, the last one before its prediction time: what the model sees, and
independent between patients, which the values of one patient are not. The reference keeps quantiles
only. A feature has drifted when the difference is both unlikely (Kolmogorov-Smirnov, or binomial for
missingness; Benjamini and Hochberg 1995 over all comparisons of the night) and large (population
stability index above 0.2, or a missing rate changed by more than 0.15).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import stats

from validation.errors import ValidationError
from validation.profiles import empty_drift

FloatArray = npt.NDArray[np.float64]

LARGEST_SKETCH = 1001
SMALLEST_SAMPLE = 20
"""Values needed on either side before two distributions are compared."""


@dataclass(frozen=True, kw_only=True)
class DriftRules:
    """When a difference counts.

    Attributes
    ----------
    psi
        Population stability index over ten reference deciles; 0.2 is the usual sign of a large change.
    missing
        Change of the share of samples without a value.
    false_discovery_rate
        Of the Benjamini-Hochberg procedure.
    """

    psi: float = 0.2
    missing: float = 0.15
    false_discovery_rate: float = 0.05


@dataclass(frozen=True)
class Reference:
    """Quantile sketches of the training data.

    Attributes
    ----------
    frame
        ``kind`` (input, score, embedding), ``name``, ``n`` (values), ``asked`` (samples), ``quantiles``
        (list, evenly spaced from minimum to maximum).
    axes
        Mean and principal axes of each embedding, by modality: ``(mean [d], axes [k, d])``.
    """

    frame: pl.DataFrame
    axes: dict[str, tuple[FloatArray, FloatArray]]

    def save(self, folder: Path) -> None:
        """Write ``reference.parquet`` and ``axes.npz`` (no pickle) into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.frame.write_parquet(folder / "reference.parquet")
        arrays = {
            f"{name}|{part}": array
            for name, pair in self.axes.items()
            for part, array in zip("ma", pair, strict=True)
        }
        np.savez(folder / "axes.npz", **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises
        ------
        ValidationError
            If a file is missing or cannot be read.
        """
        try:
            frame = pl.read_parquet(folder / "reference.parquet")
            with np.load(folder / "axes.npz", allow_pickle=False) as arrays:
                names = {key.rsplit("|", 1)[0] for key in arrays.files}
                axes = {name: (arrays[f"{name}|m"], arrays[f"{name}|a"]) for name in sorted(names)}
        except (OSError, ValueError, KeyError, pl.exceptions.PolarsError) as error:
            raise ValidationError(f"no drift reference in {folder.name} ({type(error).__name__})") from None
        return cls(frame, axes)


def input_values(events: pl.DataFrame, samples: pl.DataFrame) -> pl.DataFrame:
    """Return ``kind`` (input), ``name``, ``value``: the last value of each feature that each sample knew."""
    known = (
        events.lazy()
        .filter(pl.col("numeric_value").is_not_null())
        .join(
            samples.lazy()
            .with_row_index("sample")
            .select("sample", "subject_id", "prediction_time", "lookback_start"),
            on="subject_id",
        )
        .filter(
            (pl.col("available_time") <= pl.col("prediction_time"))
            & pl.col("time").is_between("lookback_start", "prediction_time")
        )
    )
    last = known.group_by("sample", pl.col("code").alias("name")).agg(
        pl.col("numeric_value").sort_by("time").last().cast(pl.Float64).alias("value")
    )
    return last.select(pl.lit("input").alias("kind"), "name", "value").sort("name", "value").collect()


def score_values(scores: pl.DataFrame) -> pl.DataFrame:
    """Return ``kind`` (score), ``name`` (task), ``value`` (probability, or the predicted quantity)."""
    return scores.select(
        pl.lit("score").alias("kind"),
        pl.col("task").alias("name"),
        pl.coalesce("probability", "value").alias("value"),
    ).drop_nulls()


def find_axes(embeddings: FloatArray, count: int = 8) -> tuple[FloatArray, FloatArray]:
    """Return mean and the first principal axes of reference embeddings ``[n, d]``."""
    mean = embeddings.mean(axis=0)
    _, _, axes = np.linalg.svd(embeddings - mean, full_matrices=False)
    return mean, axes[: min(count, *axes.shape)]


def embedding_values(
    modality: str, embeddings: FloatArray, axes: tuple[FloatArray, FloatArray]
) -> pl.DataFrame:
    """Return ``kind`` (embedding), ``name`` (``ecg axis 1``), ``value`` (place along the axis)."""
    places = (embeddings - axes[0]) @ axes[1].T
    names = np.repeat([f"{modality} axis {number + 1}" for number in range(places.shape[1])], places.shape[0])
    return pl.DataFrame(
        {"kind": ["embedding"] * places.size, "name": names, "value": places.T.ravel()},
        schema={"kind": pl.String, "name": pl.String, "value": pl.Float64},
    )


def build_reference(
    values: Iterable[pl.DataFrame],
    *,
    asked: int,
    axes: dict[str, tuple[FloatArray, FloatArray]] | None = None,
) -> Reference:
    """Sketch training data.

    Parameters
    ----------
    values
        Frames of :func:`input_values`, :func:`score_values`, :func:`embedding_values`.
    asked
        Number of samples, so that missing inputs can be told.
    """
    rows = [
        {
            "kind": kind,
            "name": name,
            "n": group.height,
            "asked": asked,
            "quantiles": _sketch(group["value"].to_numpy()),
        }
        for (kind, name), group in pl.concat(values)
        .sort("kind", "name")
        .group_by("kind", "name", maintain_order=True)
        if group.height >= SMALLEST_SAMPLE
    ]
    schema: dict[str, pl.DataType | type[pl.DataType]] = {
        "kind": pl.String,
        "name": pl.String,
        "n": pl.Int64,
        "asked": pl.Int64,
        "quantiles": pl.List(pl.Float64),
    }
    return Reference(pl.DataFrame(rows, schema=schema), axes or {})


def _sketch(values: FloatArray) -> list[float]:
    points = min(LARGEST_SKETCH, values.size)
    return np.quantile(values, np.linspace(0, 1, points), method="nearest").tolist()


def population_stability(values: FloatArray, reference: FloatArray, bins: int = 10) -> float:
    """Return the population stability index of ``values`` over the reference's quantile bins.

    Equal inner edges (of discrete features) are merged. Half a count is added to each bin, so that an
    empty bin does not make the index infinite, and its expectation under no change,
    ``(bins - 1) (1 / n + 1 / m)``, is taken off, so that a small night does not look drifted.
    """
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, bins + 1)[1:-1]))
    counts = [
        np.bincount(np.searchsorted(edges, side, side="left"), minlength=edges.size + 1)
        for side in (values, reference)
    ]
    now, then = ((count + 0.5) / (count.sum() + 0.5 * count.size) for count in counts)
    index = float(((now - then) * np.log(now / then)).sum())
    return max(0.0, index - edges.size * (1 / values.size + 1 / reference.size))


def compare_night(
    reference: Reference, values: Iterable[pl.DataFrame], *, asked: int, rules: DriftRules | None = None
) -> pl.DataFrame:
    """Compare tonight's values with the reference.

    Parameters
    ----------
    values
        As for :func:`build_reference`.
    asked
        Tonight's number of samples.

    Returns
    -------
    polars.DataFrame
        ``kind`` (input, missing, score, embedding), ``name``, ``n``, ``psi`` (null for missingness),
        ``distance`` (Wasserstein over the reference's interquartile range; change of the missing rate),
        ``p_value``, ``q_value``, ``drifted``; the drifted first.
    """
    rules = rules or DriftRules()
    tonight = {key: group["value"].to_numpy() for key, group in pl.concat(values).group_by("kind", "name")}
    rows = []
    for row in reference.frame.iter_rows(named=True):
        now = tonight.get((row["kind"], row["name"]), np.zeros(0))
        then = np.asarray(row["quantiles"])
        if row["kind"] == "input" and asked:
            rows.append(_compare_missing(row, now.size, asked))
        if now.size >= SMALLEST_SAMPLE:
            rows.append(_compare_values(row, now, then))
    if not rows:
        return empty_drift()
    found = pl.DataFrame(
        rows,
        schema={
            name: kind for name, kind in empty_drift().schema.items() if name not in ("q_value", "drifted")
        },
    )
    adjusted = stats.false_discovery_control(found["p_value"].to_numpy(), method="bh")
    large = pl.when(pl.col("kind") == "missing").then(pl.col("distance").abs() > rules.missing)
    return (
        found.with_columns(pl.Series("q_value", adjusted, pl.Float64))
        .with_columns(
            (
                (pl.col("q_value") < rules.false_discovery_rate) & large.otherwise(pl.col("psi") > rules.psi)
            ).alias("drifted")
        )
        .with_columns(pl.col("psi", "distance", "p_value", "q_value").round_sig_figs(3))
        .select(empty_drift().columns)
        .sort("drifted", "q_value", "kind", "name", descending=[True, False, False, False])
    )


def _compare_values(row: dict[str, object], now: FloatArray, then: FloatArray) -> dict[str, object]:
    spread = float(np.subtract(*np.quantile(then, [0.75, 0.25]))) or float(np.std(then)) or 1.0
    return {
        "kind": row["kind"],
        "name": row["name"],
        "n": now.size,
        "psi": population_stability(now, then),
        "distance": float(stats.wasserstein_distance(now, then)) / spread,
        "p_value": float(stats.ks_2samp(now, then).pvalue),
    }


def _compare_missing(row: dict[str, object], now: int, asked: int) -> dict[str, object]:
    n, of = int(str(row["n"])), int(str(row["asked"]))
    then = (of - n) / of if of else 0.0
    absent = max(0, asked - now)
    expected = min(max(then, 0.5 / (of + 1)), 1 - 0.5 / (of + 1))
    return {
        "kind": "missing",
        "name": row["name"],
        "n": asked,
        "psi": None,
        "distance": absent / asked - then,
        "p_value": float(stats.binomtest(min(absent, asked), asked, expected).pvalue),
    }
