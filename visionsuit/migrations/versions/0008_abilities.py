"""What base models can do."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# What cannot do all of it says so when the list is read next, at the start.
_ALL = '["loras", "pictures", "masks", "variations"]'


def upgrade() -> None:
    op.add_column("base_model", sa.Column("abilities", sa.JSON(), nullable=False, server_default=_ALL))


def downgrade() -> None:
    op.drop_column("base_model", "abilities")
