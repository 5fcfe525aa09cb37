"""Alembic environment: works on the connection that :func:`fhir_adapter.store.base.upgrade` hands over."""

from __future__ import annotations

from alembic import context

from fhir_adapter.store.base import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    version_table="nightingale_adapter_version",
)
with context.begin_transaction():
    context.run_migrations()
