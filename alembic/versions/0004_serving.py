"""serving"""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


# A worker of the previous release must be able to go on: each column is nullable.
def columns() -> dict[str, list[sa.Column]]:
    return {
        "job": [sa.Column("result", sa.JSON(none_as_null=True), nullable=True)],
        "modelversion": [
            sa.Column("calibration", sa.JSON(none_as_null=True), nullable=True),
            sa.Column("latency_seconds", sa.Float(), nullable=True),
        ],
    }


def upgrade() -> None:
    for table, added in columns().items():
        with op.batch_alter_table(table) as batch:
            for column in added:
                batch.add_column(column)
    op.create_table(
        "championmove",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("model", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("dataset", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("previous_id", sa.Integer(), nullable=True),
        sa.Column("by", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["modelversion.id"], name=op.f("fk_championmove_version_id")),
        sa.ForeignKeyConstraint(["previous_id"], ["modelversion.id"], name=op.f("fk_championmove_previous_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_championmove")),
    )
    with op.batch_alter_table("championmove") as moves:
        moves.create_index(op.f("ix_championmove_model_dataset"), ["model", "dataset"])


def downgrade() -> None:
    op.drop_table("championmove")
    for table, added in reversed(columns().items()):
        with op.batch_alter_table(table) as batch:
            for column in added:
                batch.drop_column(column.name)
