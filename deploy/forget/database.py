"""Take a patient's rows out of the database, and look for what is left."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Engine, MetaData, String, Text, cast, delete, inspect, or_, select

from deploy.forget.trace import Trace
from fhir_adapter.store.ledger import LedgerRow
from modelling.scoring.identity import score_key

CHUNK = 200


def possible_keys(
    engine: Engine, *, site: str, tasks: Iterable[str], encounters: Iterable[str], moments: Iterable[datetime]
) -> set[str]:
    """Return the keys that scores of these encounters have under every model that the ledger names.

    Run folders may be gone by retention while the ledger still knows their scores by key.
    """
    if not inspect(engine).has_table(LedgerRow.__tablename__):
        return set()
    with engine.connect() as connection:
        found = connection.execute(select(LedgerRow.model_digest).distinct()).scalars().all()
    digests = [digest for digest in found if digest]
    instants = list(moments)
    return {
        score_key(site=site, task=task, model_digest=digest, encounter_id=encounter, prediction_time=moment)
        for task in tasks
        for digest in digests
        for encounter in encounters
        for moment in instants
    }


def clean_database(engine: Engine, trace: Trace) -> int:
    """Delete the ledger's rows of the patient's scores; return how many."""
    if not inspect(engine).has_table(LedgerRow.__tablename__):
        return 0
    keys = sorted(trace.score_keys)
    removed = 0
    with engine.begin() as connection:
        for start in range(0, len(keys), CHUNK):
            part = keys[start : start + CHUNK]
            done = connection.execute(
                delete(LedgerRow).where(or_(LedgerRow.resource_id.in_(part), LedgerRow.server_id.in_(part)))
            )
            removed += int(done.rowcount)
    return removed


def search_database(engine: Engine, trace: Trace) -> tuple[int, list[str]]:
    """Read every text of every table; return rows read, and ``table.column`` of those that name the patient."""
    metadata = MetaData()
    metadata.reflect(engine)
    rows = 0
    found: set[str] = set()
    with engine.connect() as connection:
        for table in metadata.sorted_tables:
            texts = [column for column in table.columns if isinstance(column.type, String | Text)]
            if not texts:
                continue
            for row in connection.execute(select(*(cast(column, Text) for column in texts))):
                rows += 1
                for column, value in zip(texts, row, strict=True):
                    if value and trace.named_in(value):
                        found.add(f"{table.name}.{column.name}")
    return rows, sorted(found)
