"""Number formats of base models."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("base_model", sa.Column("dtype", sa.String(length=8), nullable=False, server_default="auto"))


def downgrade() -> None:
    op.drop_column("base_model", "dtype")
