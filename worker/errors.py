"""What can go wrong with jobs; nothing here knows about HTTP.

ChiffreError
├── NotFound             an id that names nothing
├── LeaseLost            a write for a pack that another worker has claimed since
└── ServiceError         an embedded service that does not start
"""

from ml.errors import ChiffreError


class NotFound(ChiffreError):
    """An id that names nothing."""


class LeaseLost(ChiffreError):
    """A write for a pack that another worker has claimed since; the writer must stop."""


class ServiceError(ChiffreError):
    """An embedded service that does not start."""
