"""run-off"""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("modelversion") as versions:
        versions.add_column(sa.Column("environment", sa.JSON(none_as_null=True), nullable=True))
    op.create_table(
        "rerun",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("trial", sa.Integer(), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("cut_seed", sa.BigInteger(), nullable=False),
        sa.Column("pack_id", sa.Integer(), nullable=False),
        sa.Column("state", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("epochs_run", sa.Float(), nullable=False),
        sa.Column("best_epoch", sa.Float(), nullable=True),
        sa.Column("val_loss", sa.Float(), nullable=True),
        sa.Column("val_accuracy", sa.Float(), nullable=True),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("predictions_id", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_rerun_job_id")),
        sa.ForeignKeyConstraint(["pack_id"], ["pack.id"], name=op.f("fk_rerun_pack_id")),
        sa.ForeignKeyConstraint(["predictions_id"], ["artifact.id"], name=op.f("fk_rerun_predictions_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rerun")),
        sa.UniqueConstraint("job_id", "run", "trial", "seed", name=op.f("uq_rerun_job_id_run_trial_seed")),
    )
    with op.batch_alter_table("rerun") as reruns:
        reruns.create_index(op.f("ix_rerun_pack_id"), ["pack_id"])
    op.create_table(
        "runoff",
        sa.Column("job_id", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("winner", sa.Integer(), nullable=False),
        sa.Column("verdict", sa.JSON(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_runoff_job_id")),
        sa.PrimaryKeyConstraint("job_id", "run", name=op.f("pk_runoff")),
    )


def downgrade() -> None:
    op.drop_table("runoff")
    op.drop_table("rerun")
    with op.batch_alter_table("modelversion") as versions:
        versions.drop_column("environment")
