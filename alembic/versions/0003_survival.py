"""survival"""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


# A worker of the previous release must be able to go on: each column is nullable or has a default in the database.
def columns() -> dict[str, list[sa.Column]]:
    return {
        "pack": [
            sa.Column("losses", sa.Integer(), nullable=False, server_default="0"),
            sa.Column("not_before", sa.Float(), nullable=True),
            sa.Column("parted", sa.Boolean(), nullable=False, server_default=sa.false()),
        ],
        "trial": [
            sa.Column("enqueued", sa.JSON(none_as_null=True), nullable=True),
            sa.Column("flops", sa.BigInteger(), nullable=True),
            sa.Column("weights", sa.BigInteger(), nullable=True),
        ],
        "measurement": [
            sa.Column("job_id", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
            sa.Column("sequence", sa.BigInteger(), nullable=True),
            sa.Column("lease_epoch", sa.Integer(), nullable=True),
        ],
        "artifact": [sa.Column("pack_id", sa.Integer(), nullable=True)],
        "event": [sa.Column("by", sqlmodel.sql.sqltypes.AutoString(), nullable=True)],
    }


def upgrade() -> None:
    for table, added in columns().items():
        with op.batch_alter_table(table) as batch:
            for column in added:
                batch.add_column(column)
    with op.batch_alter_table("measurement") as measurement:
        measurement.create_foreign_key(op.f("fk_measurement_job_id"), "job", ["job_id"], ["id"])
        measurement.create_index(op.f("ix_measurement_job_id_sequence"), ["job_id", "sequence"])
    with op.batch_alter_table("artifact") as artifact:
        artifact.create_foreign_key(op.f("fk_artifact_pack_id"), "pack", ["pack_id"], ["id"])
        artifact.create_index(op.f("ix_artifact_pack_id"), ["pack_id"])
    op.create_table(
        "idempotencykey",
        sa.Column("key", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("sha256", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("job_id", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("trial", sa.Integer(), nullable=True),
        sa.Column("at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_idempotencykey_job_id")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_idempotencykey")),
    )
    with op.batch_alter_table("idempotencykey") as keys:
        keys.create_index(op.f("ix_idempotencykey_at"), ["at"])


def downgrade() -> None:
    op.drop_table("idempotencykey")
    with op.batch_alter_table("measurement") as measurement:
        measurement.drop_index(op.f("ix_measurement_job_id_sequence"))
        measurement.drop_constraint(op.f("fk_measurement_job_id"), type_="foreignkey")
    with op.batch_alter_table("artifact") as artifact:
        artifact.drop_index(op.f("ix_artifact_pack_id"))
        artifact.drop_constraint(op.f("fk_artifact_pack_id"), type_="foreignkey")
    for table, added in reversed(columns().items()):
        with op.batch_alter_table(table) as batch:
            for column in added:
                batch.drop_column(column.name)
