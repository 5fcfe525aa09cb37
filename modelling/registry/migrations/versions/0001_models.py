"""Models and their transitions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ONE_CHAMPION = sa.text("state = 'champion'")


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "model",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("task", sa.String(64), nullable=False),
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("version", sa.String(40), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("registered", sa.DateTime(timezone=True), nullable=False),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("code_version", sa.String(40), nullable=False),
        sa.Column("catalogue_digest", sa.String(64), nullable=False),
        sa.Column("data_version", sa.String(200), nullable=False),
        sa.Column("data_fingerprint", sa.String(64), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("calibration", sa.JSON(), nullable=False),
        sa.Column("subgroups", sa.JSON(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_model"),
    )
    op.create_index(
        "ix_model_champion",
        "model",
        ["task"],
        unique=True,
        sqlite_where=ONE_CHAMPION,
        postgresql_where=ONE_CHAMPION,
    )
    op.create_index("ix_model_task_state", "model", ["task", "state"])
    op.create_table(
        "model_transition",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("before", sa.String(16), nullable=True),
        sa.Column("after", sa.String(16), nullable=False),
        sa.Column("replaced", sa.String(64), nullable=True),
        sa.Column("moment", sa.DateTime(timezone=True), nullable=False),
        sa.Column("who", sa.String(200), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("findings", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_model_transition"),
        sa.ForeignKeyConstraint(["digest"], ["model.digest"], name="fk_model_transition_digest"),
    )
    op.create_index("ix_model_transition_digest", "model_transition", ["digest"])


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_model_transition_digest", table_name="model_transition")
    op.drop_table("model_transition")
    op.drop_index("ix_model_task_state", table_name="model")
    op.drop_index("ix_model_champion", table_name="model")
    op.drop_table("model")
