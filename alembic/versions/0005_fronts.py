"""fronts"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


# Several trials of a run become versions; only the winner is evaluated on the test images.
def upgrade() -> None:
    with op.batch_alter_table("modelversion") as versions:
        versions.alter_column("test_accuracy", existing_type=sa.Float(), nullable=True)
        versions.drop_constraint(op.f("uq_modelversion_job_id_run"), type_="unique")
        versions.create_unique_constraint(op.f("uq_modelversion_job_id_run_trial"), ["job_id", "run", "trial"])


# The previous release knows only the winner's version. This fails if another version has been a champion.
def downgrade() -> None:
    op.execute("DELETE FROM modelversion WHERE test_accuracy IS NULL")
    with op.batch_alter_table("modelversion") as versions:
        versions.drop_constraint(op.f("uq_modelversion_job_id_run_trial"), type_="unique")
        versions.create_unique_constraint(op.f("uq_modelversion_job_id_run"), ["job_id", "run"])
        versions.alter_column("test_accuracy", existing_type=sa.Float(), nullable=False)
