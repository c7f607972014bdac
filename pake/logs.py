"""Structured logs: one line an event, each with the id of the request it belongs to."""

from __future__ import annotations

import logging
import sys

import structlog

from pake.audit import LOGGER
from pake.config import Settings


def configure(settings: Settings) -> None:
    """Send structlog and the standard library's logging to standard error, in one format."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[structlog.typing.Processor] = (
        [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
        if settings.log_format == "json"
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    for name in ("pake", "profilers", "sqlalchemy"):
        logging.getLogger(name).handlers = [handler]
    logging.getLogger("pake").setLevel(settings.log_level)
    logging.getLogger(LOGGER).setLevel("INFO")
    logging.getLogger("sqlalchemy.engine").setLevel("INFO" if settings.sql_echo else settings.sql_log_level)
