"""The schema's migrations; not in `engine.py`, because only processes that migrate need Alembic's 12 MB."""

from pathlib import Path

from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError

from alembic import command
from worker.database.engine import Database
from worker.errors import SchemaError


def migrate(database: Database) -> None:
    """Bring the schema up to date.

    Raises:
        SchemaError: if that fails, such as because the database cannot be reached.
    """
    try:
        if database.url.get_backend_name() == "sqlite" and database.url.database:
            Path(database.url.database).parent.mkdir(parents=True, exist_ok=True)
        command.upgrade(configuration(database), "head")
    except (DBAPIError, CommandError, OSError) as error:
        message = (str(error.__cause__ or error).splitlines() or [type(error).__name__])[0][:200]
        raise SchemaError(
            f"the database cannot be brought up to date: {message}; run `chiffre doctor` for details"
        ) from error


def configuration(database: Database) -> Config:
    """Return Alembic's configuration for `database`."""
    packaged = Path(__file__).parents[1] / "alembic"  # their place in a wheel
    folder = packaged if packaged.is_dir() else Path(__file__).parents[2] / "alembic"
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.attributes["engine"] = database.engine
    return config
