"""architectures"""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


# Versions of the previous release have no architecture, so that their latency is not used for another network.
def upgrade() -> None:
    with op.batch_alter_table("modelversion") as versions:
        versions.add_column(sa.Column("architecture", sqlmodel.sql.sqltypes.AutoString(), nullable=True))
        versions.create_index(op.f("ix_modelversion_architecture"), ["architecture"])


def downgrade() -> None:
    with op.batch_alter_table("modelversion") as versions:
        versions.drop_index(op.f("ix_modelversion_architecture"))
        versions.drop_column("architecture")
