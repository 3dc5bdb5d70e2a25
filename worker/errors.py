"""What can go wrong with jobs; nothing here knows about HTTP.

ChiffreError
├── Refused              a request that cannot be met
│   ├── NotFound         an id that names nothing
│   └── Conflict         what was asked for cannot be done as things stand
├── KeyReused            an Idempotency-Key that came with another request
├── LeaseLost            a write for a pack that another worker has claimed since
├── ServiceError         an embedded service that does not start
├── SchemaError          a database whose schema cannot be brought up to date
├── BadKey               a key that no artifact can have, or that another has
├── StorageFull          no room for an artifact
└── StorageAway          storage of artifacts that cannot be reached, or refuses
"""

from enum import StrEnum

from ml.errors import ChiffreError


class Fact(StrEnum):
    """The state of affairs behind a refused request; the API knows a route that helps with each."""

    NO_JOB = "no_job"
    NO_TRIAL = "no_trial"  # names: job_id
    NO_GROUP = "no_group"
    NO_VERSION = "no_version"
    NO_CHAMPION = "no_champion"
    NO_DATASET = "no_dataset"
    NOTHING_PUBLISHED = "nothing_published"
    NOTHING_TO_UNDO = "nothing_to_undo"  # names: model
    OWN_IMAGES = "own_images"
    OUT_OF_TIME = "out_of_time"  # names: job_id


class Refused(ChiffreError):
    """A request that cannot be met; `fact` says why in a form that the API adds a way out to."""

    def __init__(self, detail: str, fact: Fact | None = None, **names: str) -> None:
        self.fact = fact
        self.names = names  # of what the fact is about
        super().__init__(detail)


class NotFound(Refused):
    """An id that names nothing."""


class Conflict(Refused):
    """What was asked for cannot be done as things stand; the text says how they stand."""


class KeyReused(ChiffreError):
    """An Idempotency-Key that came with another request before."""


class LeaseLost(ChiffreError):
    """A write for a pack that has ended or that another worker has claimed; the writer must stop."""


class ServiceError(ChiffreError):
    """An embedded service that does not start."""


class SchemaError(ChiffreError):
    """A database whose schema cannot be brought up to date: it cannot be reached, or is of a newer release."""


class BadKey(ChiffreError):
    """A key that no artifact can have, or that has other content already; a mistake in the code."""


class StorageFull(ChiffreError):
    """An artifact that the store has no room for; nothing of it was stored."""


class StorageAway(ChiffreError):
    """Storage of artifacts that cannot be reached or refuses; it may answer later, or need a person to fix it."""
