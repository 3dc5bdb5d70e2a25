"""rules"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


# The jobs of earlier releases keep the rules that they began with.
def upgrade() -> None:
    op.add_column("job", sa.Column("rules", sa.Integer(), nullable=False, server_default="1"))


def downgrade() -> None:
    with op.batch_alter_table("job") as jobs:
        jobs.drop_column("rules")
