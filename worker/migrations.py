"""The schema's migrations; apart from `db.py`, because only what migrates needs Alembic's 12 MB."""

from pathlib import Path

from alembic.config import Config

from alembic import command
from worker.db import Database


def migrate(database: Database) -> None:
    """Bring the schema up to date."""
    if database.url.get_backend_name() == "sqlite" and database.url.database:
        Path(database.url.database).parent.mkdir(parents=True, exist_ok=True)
    command.upgrade(configuration(database), "head")


def configuration(database: Database) -> Config:
    """Alembic's configuration for `database`."""
    packaged = Path(__file__).parent / "alembic"  # where a wheel carries them
    folder = packaged if packaged.is_dir() else Path(__file__).parent.parent / "alembic"
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.attributes["engine"] = database.engine
    return config
