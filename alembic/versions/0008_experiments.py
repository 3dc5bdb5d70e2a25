"""experiments"""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "jobgroup",
        sa.Column("id", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("collection", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("scale", sa.Float(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobgroup")),
    )
    with op.batch_alter_table("jobgroup") as groups:
        groups.create_index(op.f("ix_jobgroup_created_at"), ["created_at"])
    op.create_table(
        "groupmember",
        sa.Column("group_id", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("experiment", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("job_id", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.ForeignKeyConstraint(["group_id"], ["jobgroup.id"], name=op.f("fk_groupmember_group_id")),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_groupmember_job_id")),
        sa.PrimaryKeyConstraint("group_id", "position", name=op.f("pk_groupmember")),
    )
    with op.batch_alter_table("groupmember") as members:
        members.create_index(op.f("ix_groupmember_job_id"), ["job_id"])


def downgrade() -> None:
    op.drop_table("groupmember")
    op.drop_table("jobgroup")
