"""The settings. No other module reads the environment; each field is the variable CHIFFRE_<NAME>."""

import os
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

DRIVERS = (
    "sqlite",
    "sqlite+pysqlite",
    "postgres",
    "postgresql",
    "postgresql+psycopg",
)  # those that the database engine supports


def cores() -> int:
    """Return the number of cores that this process may use: its CPU affinity, limited by a container's quota."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return own if quota == "max" else max(1, min(own, int(quota) // int(period)))
    except (OSError, ValueError):
        return own


class Settings(BaseSettings):
    """The settings of a process, from its environment."""

    # An error does not show the value, which may contain a password.
    model_config = SettingsConfigDict(
        env_prefix="CHIFFRE_", frozen=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    home: Path = Field(Path(".chiffre"), description="Folder for all state.")
    database_url: SecretStr | None = Field(
        None, description="SQLAlchemy URL of the database; by default a SQLite file in the home folder."
    )
    broker_url: SecretStr | None = Field(
        None, description="URL of the Celery broker; by default a private Valkey server."
    )
    artifacts: str | None = Field(
        None, description="Where artifacts are stored: a folder or `s3://bucket/prefix`; by default in the home folder."
    )
    allowed_hosts: list[str] = Field(
        ["127.0.0.1", "localhost", "::1"],
        description="Host headers that the API accepts, as a JSON list; `*.example.org` and `*` are allowed.",
    )
    trainers: int | None = Field(
        None, ge=1, le=256, description="Number of training processes; by default one per core, or one on a GPU."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Device that trials train on: auto, cpu or cuda."
    )
    lease_seconds: float = Field(
        60, gt=0, description="Seconds without a sign of life from a worker until another worker may claim its pack."
    )
    poll_seconds: float = Field(3, gt=0, description="Seconds between two checks of an idle worker for work.")
    checkpoint_seconds: float = Field(
        15, ge=0, description="Minimum seconds between two checkpoints of a running pack."
    )
    max_body_bytes: int = Field(1 << 20, ge=1024, description="Maximum size of a request body, in bytes.")
    max_image_bytes: int = Field(
        16 << 20, ge=1024, description="Maximum size of a request body of images to classify, in bytes."
    )
    max_dataset_bytes: int = Field(
        256 << 20, ge=1024, description="Maximum size of a data set, compressed and uncompressed, in bytes."
    )
    log_level: str = Field("INFO", description="Log level: DEBUG, INFO, WARNING or ERROR.")

    @field_validator("database_url")
    @classmethod
    def _can_be_opened(cls, url: SecretStr | None) -> SecretStr | None:
        try:
            known = url is None or make_url(url.get_secret_value()).drivername in DRIVERS
        except (ArgumentError, ValueError):
            known = False
        if not known:
            raise ValueError(
                "not a supported database URL; use one like postgresql://user:password@host/name or sqlite:///file.db"
            )
        return url

    @property
    def database(self) -> str:
        """The URL of the database."""
        return self.database_url.get_secret_value() if self.database_url else f"sqlite:///{self.home / 'chiffre.db'}"

    @property
    def broker(self) -> str | None:
        """The URL of the broker; None if none is set."""
        return self.broker_url.get_secret_value() if self.broker_url else None

    @property
    def dataset_cache(self) -> Path:
        """The folder in which a process keeps the data sets that it has fetched from the store."""
        return self.home / "cache" / "datasets"

    @property
    def artifact_store(self) -> str:
        """The folder or URL of the artifacts, as worker.artifacts.store reads it."""
        return self.artifacts or str(self.home / "artifacts")


@cache
def settings() -> Settings:
    """Return the settings of this process; the environment is read once."""
    return Settings()
