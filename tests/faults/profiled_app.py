"""A small app with profilers, for tests that start it under Gunicorn."""

import os
import time
from pathlib import Path

import sqlalchemy as sa
from flask import Flask
from sqlalchemy.pool import StaticPool

from profilers import Profilers

app = Flask(__name__)
app.config.update(PROFILE="queries", PROFILE_BRAKE=0)
engine = sa.create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
Profilers(app)


@app.get("/work/<int:number>")
def work(number: int) -> str:
    """Two statements; answers with the worker's process id."""
    with engine.connect() as connection:
        for value in range(2):
            connection.execute(sa.text("SELECT :value"), {"value": value})
    return str(os.getpid())


@app.get("/sleep")
def sleep() -> str:
    """Leaves its process id in a file, and sleeps."""
    Path("sleeping.tmp").write_text(str(os.getpid()))
    Path("sleeping.tmp").rename("sleeping")
    time.sleep(40)
    return ""
