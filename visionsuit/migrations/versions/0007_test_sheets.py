"""Test sheets on model cards."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "lora_sheet",
        sa.Column("generation_id", sa.Integer(), nullable=False),
        sa.Column("card_id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["card_id"], ["model_card.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["generation_id"], ["generation.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["version_id"], ["model_version.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("generation_id"),
    )
    op.create_index("ix_lora_sheet_card_id", "lora_sheet", ["card_id"])
    op.create_index("ix_lora_sheet_version_id", "lora_sheet", ["version_id"])


def downgrade() -> None:
    op.drop_table("lora_sheet")
