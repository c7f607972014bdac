"""Traces of every request and its statements, for an OpenTelemetry collector: OTEL_EXPORTER_OTLP_ENDPOINT.

Needs the extra `tracing`. Started in each worker after the fork, because the thread that sends would not live
through it. Spans carry the route, the statement's text and the request's id; query strings are left out.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from flask import Flask, request

from pake.extensions import db
from pake.guard import REQUEST_ID

if TYPE_CHECKING:
    from opentelemetry.trace import Span

SEND_SECONDS = 3
"""How long a collector may take before its spans are dropped."""
NOT_TRACED = r"^https?://[^/]+/(livez|readyz|metrics)$"


def start(app: Flask) -> None:
    """Trace the app in this process. OpenTelemetry's other variables hold too."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.flask import FlaskInstrumentor
    from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    os.environ.setdefault("OTEL_SERVICE_NAME", "pake")
    provider = TracerProvider()
    endpoint = app.extensions["pake"].otel_exporter_otlp_endpoint
    exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=SEND_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    with app.app_context():
        # Its declared range ends below SQLAlchemy 2.1; that it works with it is what test_tracing.py shows.
        SQLAlchemyInstrumentor().instrument(engine=db.engine, tracer_provider=provider, skip_dep_check=True)
    FlaskInstrumentor().instrument_app(  # type: ignore[no-untyped-call]
        app, response_hook=_describe, tracer_provider=provider, excluded_urls=NOT_TRACED
    )
    app.extensions["pake_traces"] = provider


def stop(app: Flask) -> None:
    """Send what has not been sent; the process ends."""
    provider: Any = app.extensions.get("pake_traces")
    if provider is not None:
        provider.shutdown()


def _describe(span: Span, _status: str, _headers: object) -> None:
    span.set_attribute("pake.request_id", request.environ[REQUEST_ID])
    span.set_attribute("http.target", request.path)
