"""The name of a score: the same question to the same model has the same name, for ever."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid5

NAMESPACE = UUID("6f1f9f0e-7d5b-5d0e-9a7e-2f4f0c6c5b11")


def score_key(
    *, site: str, task: str, model_digest: str, encounter_id: str, prediction_time: datetime
) -> str:
    """Return ``uuid5(NAMESPACE, "site|task|model digest|encounter|prediction time")``.

    The prediction time enters as UTC, so that a change of the site's zone does not rename scores.

    Raises
    ------
    ValueError
        If the prediction time has no zone.

    Examples
    --------
    >>> moment = datetime(2026, 11, 24, 5, tzinfo=UTC)
    >>> score_key(site="ward", task="t", model_digest="d", encounter_id="e", prediction_time=moment)
    'c6f581ad-931d-5edd-8cf1-2aa14cdede80'
    """
    if prediction_time.tzinfo is None:
        raise ValueError("a prediction time needs a zone")
    moment = prediction_time.astimezone(UTC).isoformat(timespec="microseconds")
    return str(uuid5(NAMESPACE, "|".join((site, task, model_digest, encounter_id, moment))))
