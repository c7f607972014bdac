"""`/livez`."""

from __future__ import annotations

from typing import Literal

from apiflask import APIBlueprint

from pake.schemas import Out

bp = APIBlueprint("system", __name__, tag="System")


class Live(Out):
    """The process answers."""

    status: Literal["ok"] = "ok"


@bp.get("/livez")
@bp.output(Live)
def livez() -> Live:
    """Whether the process lives.

    Asks no database: an orchestrator restarts what is not live, and that would not mend a database.
    """
    return Live()
