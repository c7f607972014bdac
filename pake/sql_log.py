"""The SQL settings, until the profilers take over: echo, slow statements, too many, the same again and again.

Logs statements as they were prepared, never the values bound to them.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import Any

import structlog
from flask import Flask, Response, g, has_request_context, request
from sqlalchemy import Engine, event

from pake.config import Settings

log = structlog.get_logger(__name__)

REPEATS = 10
"""The same statement this often in one request looks like N+1."""


def init_app(app: Flask, engine: Engine, settings: Settings) -> None:
    """Follow the settings for one app and its engine."""
    logging.getLogger("sqlalchemy.engine").setLevel("INFO" if settings.sql_echo else settings.sql_log_level)

    @event.listens_for(engine, "before_cursor_execute")
    def begin(
        connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        context.pake_began = time.perf_counter()

    @event.listens_for(engine, "after_cursor_execute")
    def end(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        milliseconds = (time.perf_counter() - context.pake_began) * 1000
        if has_request_context():
            g.setdefault("statements", Counter())[statement] += 1
        if settings.log_slow_queries and milliseconds > settings.slow_query_threshold_ms:
            log.warning("slow statement", milliseconds=round(milliseconds, 1), statement=statement[:2000])

    @app.after_request
    def judge(response: Response) -> Response:
        statements: Counter[str] = g.get("statements", Counter())
        if statements.total() > settings.max_queries_per_request:
            log.warning("too many statements", count=statements.total(), route=str(request.url_rule))
        if settings.detect_n_plus_1:
            for statement, count in statements.items():
                if count >= REPEATS:
                    log.warning("possible N+1", count=count, statement=statement[:2000])
        return response
