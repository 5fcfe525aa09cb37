"""Watermarks of the reading side."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "watermarks",
        sa.Column("source", sa.String(200), nullable=False),
        sa.Column("resource_type", sa.String(64), nullable=False),
        sa.Column("run", sa.String(200), nullable=False),
        sa.Column("reached", sa.DateTime(timezone=True), nullable=False),
        sa.Column("resources", sa.BigInteger(), nullable=False),
        sa.Column("completed", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("source", "resource_type", "run", name="pk_watermarks"),
    )
    op.create_index(
        "ix_watermarks_source_resource_type_reached", "watermarks", ["source", "resource_type", "reached"]
    )


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_watermarks_source_resource_type_reached", table_name="watermarks")
    op.drop_table("watermarks")
