"""Base models from paths and hubs."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_COLUMNS = (
    sa.Column("origin", sa.String(length=16), nullable=False, server_default="found"),
    sa.Column("repo_id", sa.String(length=200), nullable=True),
    sa.Column("revision", sa.String(length=200), nullable=True),
    sa.Column("repo_file", sa.String(length=255), nullable=True),
    sa.Column("fetch_job", sa.String(length=32), nullable=True),
    sa.Column("overrides", sa.JSON(), nullable=False, server_default="{}"),
)


def upgrade() -> None:
    for column in _COLUMNS:
        op.add_column("base_model", column._copy())


def downgrade() -> None:
    for column in reversed(_COLUMNS):
        op.drop_column("base_model", column.name)
