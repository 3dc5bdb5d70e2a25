"""data"""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "datasetversion",
        sa.Column("name", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("sha256", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("classes", sa.JSON(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("path", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("file_sha256", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["sha256"], ["dataset.sha256"], name=op.f("fk_datasetversion_sha256")),
        sa.PrimaryKeyConstraint("name", "version", name=op.f("pk_datasetversion")),
    )
    with op.batch_alter_table("datasetversion") as versions:
        versions.create_index(op.f("ix_datasetversion_sha256"), ["sha256"])


def downgrade() -> None:
    op.drop_table("datasetversion")
