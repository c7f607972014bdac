"""With no profiler enabled an app is what it would be without the extension, down to the imported modules."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

PROGRAM = """
import json, os, sys
import flask, flask_sqlalchemy, sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import Pool, QueuePool

with_extension, name = json.loads(sys.argv[1])
app = flask.Flask("app")
app.config.update(SQLALCHEMY_DATABASE_URI="sqlite://", PROFILE=name)
before = set(sys.modules)
if with_extension:
    from profilers import Profilers
    Profilers(app)
db = flask_sqlalchemy.SQLAlchemy(app)
app.add_url_rule("/", view_func=lambda: str(db.session.scalar(sa.text("SELECT 1"))))
response = app.test_client().get("/")
with app.app_context():
    engine = db.engine

def listeners(target):
    return {name: len(list(getattr(target.dispatch, name))) for name in dir(target.dispatch)
            if not name.startswith("_") and hasattr(getattr(target.dispatch, name), "__iter__")}

print(json.dumps({
    "body": response.text,
    "headers": sorted(key for key, _ in response.headers),
    "methods": sorted(name for name in vars(app) if callable(getattr(flask.Flask, name, None))),
    "hooks": [sum(map(len, getattr(app, name).values())) for name in
              ("before_request_funcs", "after_request_funcs", "teardown_request_funcs",
               "url_value_preprocessors", "url_default_functions", "template_context_processors")],
    "teardowns": len(app.teardown_appcontext_funcs),
    "commands": sorted(app.cli.commands),
    "rules": sorted(map(str, app.url_map.iter_rules())),
    "engine": listeners(engine), "dialect": listeners(engine.dialect), "pool": listeners(engine.pool),
    "session": listeners(Session()),
    "wrapped": [name for each in (engine.pool, engine.dialect)
                for name in ("connect", "do_commit", "do_rollback", "do_execute") if name in vars(each)],
    "threads": __import__("threading").active_count(),
    "modules": sorted(m for m in set(sys.modules) - before if m.split(".")[0] in ("profilers", "sqlalchemy")),
}))
"""


def look(with_extension: bool, name: str, store: str = "") -> dict[str, Any]:
    """What an app of its own process shows of hooks, listeners, headers and modules."""
    arguments = json.dumps([with_extension, name])
    environment = {"PATH": "", "PYTHONPATH": ".", "FLASK_PROFILE_STORE": store}
    output = subprocess.run(
        [sys.executable, "-c", PROGRAM, arguments],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return json.loads(output.stdout)


ALWAYS = {
    "profilers", "profilers.extension", "profilers.options", "profilers.plugin", "profilers.profile",
}  # fmt: skip


def test_off_changes_nothing():
    without, off = look(False, ""), look(True, "")
    assert set(off.pop("modules")) - set(without.pop("modules")) == ALWAYS
    assert off == without


def test_on_is_seen_by_the_same_look(tmp_path):
    without, on = look(False, ""), look(True, "queries,nplusone", str(tmp_path))
    assert on["body"] == without["body"]
    assert on["headers"] == without["headers"]
    assert on["dialect"]["do_execute"] == without["dialect"]["do_execute"] + 1
    assert on["engine"] == without["engine"]  # any listener there would slow each statement down
    assert {"wsgi_app", "full_dispatch_request", "handle_exception"} <= set(on["methods"])
    assert "profilers.collect" in on["modules"]
