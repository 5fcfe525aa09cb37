"""Alembic environment: works on the connection that :func:`modelling.registry.tables.upgrade` hands over."""

from __future__ import annotations

from alembic import context

from modelling.registry.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    version_table="nightingale_registry_version",
)
with context.begin_transaction():
    context.run_migrations()
