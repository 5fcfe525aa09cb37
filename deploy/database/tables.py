"""Every room's tables brought up to date at once, by the role that owns them."""

from __future__ import annotations

from sqlalchemy import Engine, inspect, text

from fhir_adapter.store import upgrade
from modelling.registry.tables import upgrade as upgrade_registry
from validation.history import History

NIGHT_ROLE = "nightingale_night"
HISTORY = "profile_history"


def upgrade_all(engine: Engine) -> list[str]:
    """Make or change the tables of ledger, watermarks, history and registry; return their names.

    On PostgreSQL with the roles of ``roles.sql``, the night may replace a night's aggregates in the history:
    the only rows that it may delete.
    """
    upgrade(engine)
    upgrade_registry(engine)
    History(engine)
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            known = "select 1 from pg_roles where rolname = :role"
            if connection.execute(text(known), {"role": NIGHT_ROLE}).first():
                connection.execute(text(f"grant delete on {HISTORY} to {NIGHT_ROLE}"))
    return sorted(inspect(engine).get_table_names())
