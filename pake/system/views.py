"""`/`, `/livez`, `/readyz`, `/metrics`, `/docs`, `/admin`."""

from __future__ import annotations

import secrets
from typing import Any, Literal, cast

from apiflask import APIBlueprint, APIFlask
from flask import Response, current_app, render_template
from sqlalchemy import func, select, text

from pake import draining
from pake.auth.models import User
from pake.auth.tokens import bearer
from pake.errors import Problem
from pake.extensions import db
from pake.metrics import exposition
from pake.registry.models import ServiceHealthCheck, ServiceMetrics, ServiceRegistry
from pake.schemas import Out

bp = APIBlueprint("system", __name__, tag="System", template_folder="templates")


def _page(description: str, media_type: str) -> Any:
    return {"description": description, "content": {media_type: {"schema": {"type": "string"}}}}


class About(Out):
    """What this is."""

    name: str
    version: str
    links: dict[str, str]


class Health(Out):
    """The answer of a probe."""

    status: Literal["ok"] = "ok"


class Counts(Out):
    """How much is stored."""

    users: int
    services: int
    health_checks: int
    metrics: int


@bp.get("/")
@bp.output(About)
def about() -> About:
    """Name, version and where to go from here."""
    app = cast(APIFlask, current_app)
    pages = (
        "/docs",
        "/openapi.json",
        "/livez",
        "/readyz",
        "/metrics",
        "/auth/token",
        "/auth/register",
        "/services",
    )
    return About(name="pake", version=app.version, links={page.strip("/"): page for page in pages})


@bp.get("/livez")
@bp.output(Health)
def livez() -> Health:
    """Whether the process lives.

    Asks no database: an orchestrator restarts what is not live, and that would not mend a database.
    """
    return Health()


@bp.get("/readyz")
@bp.output(Health)
@bp.doc(responses=[503])
def readyz() -> Health:
    """Whether requests can be served: the database answers, and the service is not about to stop."""
    if draining.begun():
        raise Problem(503, "The service is about to stop.")
    db.session.execute(text("SELECT 1"))
    return Health()


@bp.get("/metrics")
@bp.doc(responses={200: _page("Prometheus's text format", "text/plain")})
def show_metrics() -> Response:
    """Requests, statements, pool, password hashes, findings and memory, over all workers."""
    return exposition()


@bp.get("/docs")
@bp.doc(responses={200: _page("This page", "text/html")})
def docs() -> Response:
    """The API for people: one page, nothing from outside, no script."""
    nonce = secrets.token_urlsafe(16)
    page = render_template("docs.html", spec=cast(APIFlask, current_app)._get_spec("json"), nonce=nonce)
    policy = f"default-src 'none'; style-src 'nonce-{nonce}'; base-uri 'none'; frame-ancestors 'none'"
    return Response(page, headers={"Content-Security-Policy": policy}, mimetype="text/html")


@bp.get("/admin")
@bearer(role="admin")
@bp.output(Counts)
def admin() -> Counts:
    """How much is stored."""
    tables = {
        "users": User,
        "services": ServiceRegistry,
        "health_checks": ServiceHealthCheck,
        "metrics": ServiceMetrics,
    }
    counts = [select(func.count()).select_from(table).scalar_subquery() for table in tables.values()]
    return Counts(**dict(zip(tables, db.session.execute(select(*counts)).one(), strict=True)))
