"""sizes"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TABLES = ("artifact", "datasetversion")


# A checkpoint of many lanes of a wide network may exceed 2 GiB.
def upgrade() -> None:
    for table in TABLES:
        with op.batch_alter_table(table) as rows:
            rows.alter_column("size", existing_type=sa.Integer(), type_=sa.BigInteger(), existing_nullable=False)


def downgrade() -> None:
    for table in TABLES:
        with op.batch_alter_table(table) as rows:
            rows.alter_column("size", existing_type=sa.BigInteger(), type_=sa.Integer(), existing_nullable=False)
