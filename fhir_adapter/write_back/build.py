"""From a table of scores to resources, in the order in which a server can take them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, tzinfo
from typing import Any

import polars as pl

from fhir_adapter.write_back.device import device, model_card
from fhir_adapter.write_back.model_facts import ModelFacts
from fhir_adapter.write_back.naming import Names
from fhir_adapter.write_back.provenance import provenance
from fhir_adapter.write_back.risk_assessment import risk_assessment

PROVENANCE_BATCH = 100


def build_resources(
    scores: pl.DataFrame,
    *,
    card: ModelFacts,
    site: str,
    partition: str,
    site_uri: str = "https://nightingale.invalid",
    zone: tzinfo = UTC,
    transparency_profiles: bool = True,
    reference_base: str | None = None,
    provenance_batch: int = PROVENANCE_BATCH,
) -> list[dict[str, Any]]:
    """Return all that a night writes: model card and Device, RiskAssessments, Provenance.

    The same scores give the same resources in the same order, whatever the order of the rows.

    Parameters
    ----------
    scores
        Table of :class:`validation.contracts.Scores`, of one model.
    card
        Facts of that model.
    site, site_uri
        Short name and base URI of the site.
    partition
        Asset partition key of the run.
    zone
        Zone in which times are shown.
    transparency_profiles
        Whether to follow HL7's AI Transparency drafts, model card included.
    reference_base
        Base address of the source, where the destination is another server.
    provenance_batch
        RiskAssessments a Provenance.

    Raises
    ------
    ValueError
        If a score was made by weights other than the card's: its Device would be wrong.
    """
    if scores.is_empty():
        return []
    foreign = scores.filter(pl.col("model_digest") != card.digest).height
    if foreign:
        raise ValueError(f"{foreign} score(s) were not made by the weights of the given card")
    names = Names(uri=site_uri, site=site)
    resources = []
    if transparency_profiles and card.markdown:
        resources.append(model_card(card, names=names))
    resources.append(device(card, names=names, transparency=transparency_profiles))
    ordered = scores.sort("score_key")
    resources += [
        risk_assessment(
            row, card=card, names=names, partition=partition, zone=zone, reference_base=reference_base
        )
        for row in ordered.iter_rows(named=True)
    ]
    for number, batch in enumerate(_batches(ordered, provenance_batch)):
        resources.append(
            provenance(
                batch["score_key"].to_list(),
                card=card,
                names=names,
                partition=partition,
                number=number,
                recorded=batch["prediction_time"].max(),  # type: ignore[arg-type]
                zone=zone,
                transparency=transparency_profiles,
            )
        )
    return resources


def _batches(frame: pl.DataFrame, size: int) -> Iterator[pl.DataFrame]:
    for start in range(0, frame.height, size):
        yield frame.slice(start, size)
