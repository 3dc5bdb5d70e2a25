"""lanes"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("job") as job:
        job.add_column(sa.Column("lanes", sa.Integer(), nullable=True))
    with op.batch_alter_table("pack") as pack:
        pack.drop_index(op.f("ix_pack_job_id"))
        pack.create_index(op.f("ix_pack_job_id_done"), ["job_id", "done"])

    with op.batch_alter_table("trial") as trial:
        trial.alter_column("epochs_run", existing_type=sa.Integer(), type_=sa.Float(), existing_nullable=False)


def downgrade() -> None:
    with op.batch_alter_table("trial") as trial:
        trial.alter_column("epochs_run", existing_type=sa.Float(), type_=sa.Integer(), existing_nullable=False)
    with op.batch_alter_table("pack") as pack:
        pack.drop_index(op.f("ix_pack_job_id_done"))
        pack.create_index(op.f("ix_pack_job_id"), ["job_id"])
    with op.batch_alter_table("job") as job:
        job.drop_column("lanes")
