"""Versions are found by their file's name, as LoRA tags in prompts write it."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_model_version_lower_file_name", "model_version", [sa.text("lower(file_name)")])


def downgrade() -> None:
    op.drop_index("ix_model_version_lower_file_name", "model_version")
