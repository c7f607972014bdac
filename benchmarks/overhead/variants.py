"""What is measured: no profiler, ours in several settings, and the tools that install on the same SQLAlchemy.

Each variant is a function that installs one tool into the app as its manual says; what it would send over
a network is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from flask import Flask
from flask_sqlalchemy import SQLAlchemy

Install = Callable[[Flask, SQLAlchemy], None]


def none(app: Flask, db: SQLAlchemy) -> None:
    """The app as it is."""


def ours(names: str, app: Flask, db: SQLAlchemy) -> None:
    from profilers import Profilers

    # The brake would profile fewer requests as soon as they cost too much, which is what is to be seen.
    app.config.update(PROFILE=names, PROFILE_BRAKE=0)
    Profilers(app)


def tracemalloc(frames: int, app: Flask, db: SQLAlchemy) -> None:
    """`memory` while it traces, as `python -m profilers memory` makes it do for a time."""
    app.config.update(PROFILE_MEMORY_SNAPSHOT_EVERY=30, PROFILE_MEMORY_FRAMES=frames)
    ours("memory", app, db)


def queryspy(app: Flask, db: SQLAlchemy) -> None:
    from queryspy.wsgi import QuerySpyMiddleware

    app.wsgi_app = QuerySpyMiddleware(app.wsgi_app)  # type: ignore[method-assign]


def tracepanel(app: Flask, db: SQLAlchemy) -> None:
    """Without its agent: that is another process, and outlives this one."""
    from tracepanel.flask import install

    install(app, enabled=True, agent="off")


def debug_toolbar(app: Flask, db: SQLAlchemy) -> None:
    from flask_debugtoolbar import DebugToolbarExtension

    app.config.update(DEBUG_TB_ENABLED=True, DEBUG_TB_INTERCEPT_REDIRECTS=False)
    DebugToolbarExtension(app)


def opentelemetry(app: Flask, db: SQLAlchemy) -> None:
    """To a batch processor whose exporter drops the spans. It declines SQLAlchemy 2.1, so it is not asked."""
    from opentelemetry.instrumentation.flask import FlaskInstrumentor
    from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Drop(SpanExporter):
        def export(self, spans: object) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Drop()))
    with app.app_context():
        SQLAlchemyInstrumentor().instrument(
            engine=db.engine, tracer_provider=provider, skip_dep_check=True, raise_exception_on_conflict=False
        )
    FlaskInstrumentor().instrument_app(app, tracer_provider=provider)  # type: ignore[no-untyped-call]


def sentry(app: Flask, db: SQLAlchemy) -> None:
    """Every request traced, to a transport that drops the envelopes."""
    import sentry_sdk
    from sentry_sdk.envelope import Envelope
    from sentry_sdk.transport import Transport

    class Drop(Transport):  # type: ignore[misc]
        def capture_envelope(self, envelope: Envelope) -> None:
            pass

    sentry_sdk.init("https://key@localhost/1", transport=Drop, traces_sample_rate=1.0)


OURS_TOGETHER = "queries,nplusone,slow-queries"

BASELINE = "no profiler"
AGAIN = "no profiler, again"
VARIANTS: dict[str, Install] = {
    BASELINE: none,
    AGAIN: none,
    "ours, off": partial(ours, ""),
    **{
        f"ours, {name}": partial(ours, name)
        for name in ("queries", "nplusone", "slow-queries", "pyinstrument", "memory", "memray")
    },
    "ours, memory, tracemalloc of 1 frame": partial(tracemalloc, 1),
    **{
        f"ours, memory, tracemalloc of {frames} frames": partial(tracemalloc, frames) for frames in (3, 5, 10)
    },
    "ours, " + OURS_TOGETHER.replace(",", " + "): partial(ours, OURS_TOGETHER),
    "OpenTelemetry": opentelemetry,
    "flask-debugtoolbar": debug_toolbar,
    "tracepanel": tracepanel,
    "Sentry": sentry,
    "queryspy": queryspy,
}
QUICK = [BASELINE, AGAIN, "ours, off", "ours, " + OURS_TOGETHER.replace(",", " + ")]

SETTINGS: dict[str, dict[str, object]] = {"flask-debugtoolbar": {"SQLALCHEMY_RECORD_QUERIES": True}}
"""Settings that a variant needs before Flask-SQLAlchemy is bound to the app."""


def profilers_of(variant: str) -> set[str]:
    """Names of our profilers that a variant needs installed."""
    install = VARIANTS[variant]
    if not isinstance(install, partial):
        return set()
    names = "memory" if install.func is tracemalloc else install.args[0]
    return {name for name in names.split(",") if name}
