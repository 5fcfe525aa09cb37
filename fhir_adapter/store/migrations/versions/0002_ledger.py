"""The outbox ledger of the writing side."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "ledger",
        sa.Column("destination", sa.String(300), nullable=False),
        sa.Column("resource_type", sa.String(64), nullable=False),
        sa.Column("resource_id", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("payload_hash", sa.String(64), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("server_type", sa.String(64), nullable=True),
        sa.Column("server_id", sa.String(64), nullable=True),
        sa.Column("server_version", sa.String(64), nullable=True),
        sa.Column("error_class", sa.String(64), nullable=True),
        sa.Column("error_codes", sa.String(200), nullable=True),
        sa.Column("partition", sa.String(200), nullable=False),
        sa.Column("run", sa.String(200), nullable=False),
        sa.Column("model_digest", sa.String(64), nullable=True),
        sa.Column("withdrawn", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("destination", "resource_type", "resource_id", name="pk_ledger"),
    )
    for field in ("partition", "run", "model_digest"):
        op.create_index(f"ix_ledger_destination_{field}", "ledger", ["destination", field])


def downgrade() -> None:
    """Take back."""
    for field in ("model_digest", "run", "partition"):
        op.drop_index(f"ix_ledger_destination_{field}", table_name="ledger")
    op.drop_table("ledger")
