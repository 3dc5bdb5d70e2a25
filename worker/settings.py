"""The settings: the only reader of the environment. Each field is the variable CHIFFRE_<NAME>."""

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
)  # the database engine opens these


def cores() -> int:
    """The cores that this process may use: of its affinity, and of the quota that a container may have."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return own if quota == "max" else max(1, min(own, int(quota) // int(period)))
    except (OSError, ValueError):
        return own


class Settings(BaseSettings):
    """What can be set from outside."""

    # What cannot be read is not shown: there may be a password in it.
    model_config = SettingsConfigDict(
        env_prefix="CHIFFRE_", frozen=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    home: Path = Field(Path(".chiffre"), description="the folder that all state lies under")
    database_url: SecretStr | None = Field(None, description="SQLAlchemy URL; by default SQLite under the home")
    broker_url: SecretStr | None = Field(None, description="Celery's broker; by default a private Valkey")
    artifacts: str | None = Field(
        None, description="where artifacts lie: a folder, or `s3://bucket/prefix`; by default under the home"
    )
    allowed_hosts: list[str] = Field(
        ["127.0.0.1", "localhost", "::1"],
        description="Host headers that are answered, as a JSON list; `*.example.org` and `*` work",
    )
    trainers: int | None = Field(
        None, ge=1, le=256, description="training processes; by default one a core, on a GPU one in all"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where trials train: auto, cpu or cuda")
    lease_seconds: float = Field(60, gt=0, description="a pack whose worker is silent this long goes to another")
    poll_seconds: float = Field(3, gt=0, description="how often an idle worker looks for work without being rung")
    checkpoint_seconds: float = Field(15, ge=0, description="between two checkpoints of a running pack, at least")
    max_body_bytes: int = Field(1 << 20, ge=1024, description="largest request body")
    max_image_bytes: int = Field(16 << 20, ge=1024, description="largest body of images, to be predicted")
    max_dataset_bytes: int = Field(256 << 20, ge=1024, description="largest data set, packed and unpacked")
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR")

    @field_validator("database_url")
    @classmethod
    def _can_be_opened(cls, url: SecretStr | None) -> SecretStr | None:
        try:
            known = url is None or make_url(url.get_secret_value()).drivername in DRIVERS
        except (ArgumentError, ValueError):
            known = False
        if not known:
            raise ValueError(
                "is no URL of a database that can be used, such as postgresql://user:password@host/name or sqlite:///file.db"
            )
        return url

    @property
    def database(self) -> str:
        """The database's URL."""
        return self.database_url.get_secret_value() if self.database_url else f"sqlite:///{self.home / 'chiffre.db'}"

    @property
    def broker(self) -> str | None:
        """The broker's URL, None where no broker is named."""
        return self.broker_url.get_secret_value() if self.broker_url else None

    @property
    def dataset_cache(self) -> Path:
        """Where a worker keeps the data sets that it has fetched from the store."""
        return self.home / "cache" / "datasets"

    @property
    def artifact_store(self) -> str:
        """Where artifacts lie, as worker.artifacts.store reads it: a folder or a URL."""
        return self.artifacts or str(self.home / "artifacts")


@cache
def settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
