"""Score samples: every one of them ends in exactly one of two tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from modelling.batches import COLUMNS, MODALITIES, Batch, Modality, plan_batches
from modelling.batches.ahead import ahead
from modelling.scoring.embeddings import EmbeddingStore
from modelling.scoring.encoders import out_of_memory, release_memory
from modelling.scoring.explain import feature_contributions, modality_contributions, probabilities
from modelling.scoring.identity import score_key
from modelling.scoring.model import ScoringModel
from modelling.scoring.portions import Portion, Table, Tables, portions
from modelling.training.calibrate import risk_level
from validation.contracts import empty
from validation.reasons import Reason

DIGITS = 6
TOP_EVENTS = 5
MAX_BASIS = 20
PORTION = 1024
"""Samples that are read and encoded at a time."""
SMALLEST_BUDGET = 64
"""Tokens; a device that cannot hold so few is not used any further."""
#: ``(stage, done, total)``.
Watcher = Callable[[str, int, int], None]
#: Computed fields of a score, or why there is none.
Outcome = dict[str, Any] | tuple[Reason, str | None]


@dataclass(frozen=True)
class _Sources:
    """``source_ref`` by position in the tables that the batches point into."""

    events: pl.Series
    codes: pl.Series
    recordings: pl.Series
    images: pl.Series


def _items(batch: Batch, row: int, modality: Modality, *, all_items: bool) -> list[int]:
    offsets, positions = (
        (batch.ecg_offsets, batch.ecg_row)
        if modality is Modality.ECG
        else (batch.image_offsets, batch.image_row)
    )
    items = positions[int(offsets[row]) : int(offsets[row + 1])].tolist()
    items.reverse()  # latest first
    return items if all_items else items[:1]


def _fields(
    model: ScoringModel, batch: Batch, sources: _Sources, *, token_budget: int, explain: bool
) -> list[dict[str, Any]]:
    """Return the computed fields of each sample of a batch."""
    encoded = batch.to(model.device, model.dtype)
    p = probabilities(model, encoded)
    low, high = model.interval.bounds(np.round(p, DIGITS)) if model.interval else (None, None)
    changes = modality_contributions(model, encoded, p)
    features = (
        feature_contributions(model, encoded, p, token_budget=token_budget) if explain else [[]] * len(batch)
    )
    result = []
    for row in range(len(batch)):
        present = [
            m
            for column, m in enumerate(MODALITIES)
            if m in model.modalities and bool(batch.present[row, column])
        ]
        ranked = sorted(features[row], key=lambda item: (-abs(round(item[0], DIGITS)), item[1]))[:TOP_EVENTS]
        top = [
            {
                "code": sources.codes[int(batch.token_row[token])],
                "source_ref": sources.events[int(batch.token_row[token])],
                "weight": round(weight, DIGITS) + 0.0,
            }
            for weight, token in ranked
        ]
        every = model.network.uses_all_items
        basis = [
            sources.recordings[item]
            for item in _items(batch, row, Modality.ECG, all_items=every)
            if Modality.ECG in present
        ]
        basis += [
            sources.images[item]
            for item in _items(batch, row, Modality.CXR, all_items=every)
            if Modality.CXR in present
        ]
        basis += [item["source_ref"] for item in top]
        result.append(
            {
                "probability": round(float(p[row]), DIGITS) if np.isfinite(p[row]) else None,
                "lower": None if low is None else round(float(low[row]), DIGITS),
                "upper": None if high is None else round(float(high[row]), DIGITS),
                "modalities_present": [str(m) for m in present],
                "modalities_missing": [str(m) for m in model.modalities if m not in present],
                "contributions": [
                    {
                        "modality": str(m),
                        "change": round(float(changes[row, COLUMNS[m.value]]), DIGITS) + 0.0,
                    }
                    for m in present
                ],
                "top_events": top,
                "basis": list(dict.fromkeys(basis))[:MAX_BASIS],
            }
        )
    return result


def _scored(
    model: ScoringModel,
    portion: Portion,
    rows: NDArray[np.int64],
    sources: _Sources,
    token_budget: int,
    explain: bool,
) -> list[dict[str, Any] | str]:
    """Return the fields, or the reason for failing, of each of these samples.

    A batch that fails is halved until it works or holds one sample: so a device that is out of memory gets
    smaller batches, and the sample that cannot be scored does not take the others with it.
    """
    try:
        batch = portion.dataset.batch(rows)
        return list(_fields(model, batch, sources, token_budget=token_budget, explain=explain))
    except Exception as error:
        memory = out_of_memory(error)
        if len(rows) == 1 and not (memory and token_budget > SMALLEST_BUDGET):
            return [type(error).__name__]
    if memory:
        release_memory(model.device)
        token_budget = max(SMALLEST_BUDGET, token_budget // 4)
    half = len(rows) // 2
    return [
        fields
        for part in (rows[:half], rows[half:])
        if len(part)
        for fields in _scored(model, portion, part, sources, token_budget, explain)
    ]


def _outcomes(
    model: ScoringModel, portion: Portion, *, token_budget: int, max_samples: int, explain: bool
) -> dict[int, Outcome]:
    """Return the outcome of every sample of a portion, by position."""
    dataset = portion.dataset
    used = [COLUMNS[modality.value] for modality in model.modalities]
    usable = dataset.all.present[:, used].any(1).numpy()
    outcome: dict[int, Outcome] = {
        int(row): (Reason.SKIP_NO_USABLE_INPUT, None) for row in np.flatnonzero(~usable)
    }
    for row, _, error in dataset.failures:
        outcome[row] = (Reason.SKIP_SCORING_FAILED, error)
    known = portion.samples["encounter_id"].is_in(portion.encounters["encounter_id"].implode()).to_numpy()
    for position in np.flatnonzero(~known):
        outcome[int(position)] = (Reason.SKIP_SCORING_FAILED, "EncounterUnknown")
    sources = _Sources(
        portion.events["source_ref"],
        portion.events["code"],
        portion.recordings["source_ref"],
        portion.images["source_ref"],
    )
    rows = np.array([row for row in range(len(dataset)) if row not in outcome], dtype=np.int64)
    plan = plan_batches(dataset.token_counts[rows], token_budget=token_budget, max_samples=max_samples)
    for positions in plan:
        part = rows[positions]
        for row, fields in zip(
            part, _scored(model, portion, part, sources, token_budget, explain), strict=True
        ):
            if isinstance(fields, str):
                outcome[int(row)] = (Reason.SKIP_SCORING_FAILED, fields)
            elif fields["probability"] is None:
                outcome[int(row)] = (Reason.SKIP_SCORING_FAILED, "NotFinite")
            else:
                outcome[int(row)] = fields
    return outcome


@torch.inference_mode()
def score_samples(
    model: ScoringModel,
    *,
    samples: pl.DataFrame,
    encounters: Table,
    events: Table,
    recordings: Table,
    images: Table,
    run_folder: Path,
    site: str,
    progress: Watcher | None = None,
    token_budget: int | None = None,
    max_samples: int = 512,
    portion: int = PORTION,
    embeddings: Path | None = None,
    explain: bool = True,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Score every sample, or say why not.

    Parameters
    ----------
    model
        From :func:`load_model`.
    samples, encounters, events, recordings, images
        Tables of one shard, in memory or lazy (:func:`polars.scan_parquet`); only what was known at a
        sample's prediction time is used.
    run_folder
        Folder that ``array_path`` is relative to.
    site
        Name of the site, part of a score's identity.
    progress
        ``("score", done, total)``.
    token_budget, max_samples
        Padded tokens and samples a batch; None takes the model's own budget.
    portion
        Samples that are read and encoded at a time, one portion ahead of the network; it bounds memory.
    embeddings
        Folder of a night's ECG and image embeddings, shared by its tasks, prediction times and shards; None
        keeps none beyond this call.
    explain
        Whether to compute ``top_events`` (one forward pass a feature).

    Returns
    -------
    scores, skipped
        Tables. ``contributions`` holds, for each present modality, the probability minus the probability
        without it; ``top_events`` the same for the values of one feature, named by the latest of them.
        A sample without any visible input of a modality that the model reads is skipped
        (``skip.no_usable_input``); one with an unreadable array or a failing computation too
        (``skip.scoring_failed``, the error's class in ``detail``).
    """
    ordered = samples.sort("subject_id", "prediction_time", "encounter_id", "task")
    tables = Tables(
        encounters=encounters, events=events, recordings=recordings, images=images, run_folder=run_folder
    )
    budget = token_budget or model.token_budget
    parts = portions(model, ordered, tables, size=portion, store=EmbeddingStore(embeddings))
    found: list[tuple[pl.DataFrame, pl.DataFrame]] = [(empty("scores"), empty("skipped"))]
    done = 0
    for part in ahead(parts):
        outcome = _outcomes(model, part, token_budget=budget, max_samples=max_samples, explain=explain)
        found.append(_tables(model, part.samples, part.encounters, outcome, site))
        done += part.samples.height
        if progress:
            progress("score", done, ordered.height)
    scores, skipped = zip(*found, strict=True)
    return pl.concat(scores), pl.concat(skipped)


def _tables(
    model: ScoringModel,
    samples: pl.DataFrame,
    encounters: pl.DataFrame,
    outcome: dict[int, Outcome],
    site: str,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    references = {
        row["encounter_id"]: row
        for row in encounters.select("encounter_id", "patient_ref", "encounter_ref").iter_rows(named=True)
    }
    scores, skipped = [], []
    for position, sample in enumerate(samples.iter_rows(named=True)):
        keys = {name: sample[name] for name in ("subject_id", "encounter_id", "prediction_time", "task")}
        fields = outcome[position]
        if isinstance(fields, tuple):
            skipped.append({**keys, "reason": str(fields[0]), "detail": fields[1]})
            continue
        reference = references[sample["encounter_id"]]
        scores.append(
            {
                **keys,
                **fields,
                "score_key": score_key(
                    site=site,
                    task=sample["task"],
                    model_digest=model.digest,
                    encounter_id=sample["encounter_id"],
                    prediction_time=sample["prediction_time"],
                ),
                "patient_ref": reference["patient_ref"],
                "encounter_ref": reference["encounter_ref"],
                "model_name": model.name,
                "model_version": model.version,
                "model_digest": model.digest,
                "value": None,
                "risk_level": risk_level(fields["probability"], model.thresholds),
                "horizon_hours": model.horizon_hours,
                "computed_on": model.device,
            }
        )
    return (
        pl.DataFrame(scores, schema=empty("scores").schema) if scores else empty("scores"),
        pl.DataFrame(skipped, schema=empty("skipped").schema) if skipped else empty("skipped"),
    )
