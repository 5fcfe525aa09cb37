"""``nightingale database``: the tables of ledger, watermarks and history, kept by the role that owns them."""

from __future__ import annotations

import typer
from rich.console import Console

app = typer.Typer(
    no_args_is_help=True, help="Keep the database of ledger, watermarks and history up to date."
)


@app.command("upgrade")
def upgrade_command() -> None:
    """Make or change the tables; run it as the owner role, so that the night's role needs no right to do so.

    Example: NIGHTINGALE_STORAGE__DATABASE=postgresql+psycopg://nightingale_owner@… nightingale database upgrade
    """
    from deploy.database.tables import upgrade_all
    from deploy.settings import load_settings
    from fhir_adapter.store import open_engine

    engine = open_engine(load_settings().storage.database)
    try:
        upgrade_all(engine)
        where = engine.url.render_as_string(hide_password=True)
    finally:
        engine.dispose()
    Console().print(f"{where}: up to date", highlight=False, soft_wrap=True)
