"""Logging: one JSON object per line on standard error."""

import logging
import sys

import structlog

from worker.settings import settings


def configure_logging(process: str) -> None:
    """Set up the log of this process; call it once, at the start.

    Args:
        process: The name that every line carries, such as "worker".
    """
    level = logging.getLevelNamesMapping().get(settings().log_level.upper(), logging.INFO)
    logging.basicConfig(
        level=level, stream=sys.stderr, format=f"%(asctime)s {process} %(levelname)s %(name)s %(message)s"
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
