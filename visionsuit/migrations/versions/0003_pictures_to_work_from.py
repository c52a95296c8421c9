"""Pictures to work from, and sheets."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("generation_image", sa.Column("is_sheet", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "generation_input",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("public_id", sa.String(length=32), nullable=False),
        sa.Column("owner_id", sa.Integer(), nullable=False),
        sa.Column("object_id", sa.String(length=64), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["owner_id"], ["account.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("object_id"),
        sa.UniqueConstraint("public_id"),
    )
    op.create_index("ix_generation_input_owner_id", "generation_input", ["owner_id"])
    op.create_index("ix_generation_input_used_at", "generation_input", ["used_at"])


def downgrade() -> None:
    op.drop_table("generation_input")
    op.drop_column("generation_image", "is_sheet")
