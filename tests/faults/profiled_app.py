"""A small app with profilers, for tests that start it under Gunicorn."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from flask import Flask
from sqlalchemy.pool import StaticPool

from profilers import Profilers

app = Flask(__name__)
app.config.update(PROFILE="queries", PROFILE_BRAKE=0)
engine = sa.create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
Profilers(app)


@app.get("/numbers/<int:number>")
def work(number: int) -> str:
    """Two statements; answers with the worker's process id."""
    with engine.connect() as connection:
        for value in range(2):
            connection.execute(sa.text("SELECT :value"), {"value": value})
    return str(os.getpid())


@app.get("/stream/<int:rows>")
def stream(rows: int) -> Iterator[str]:
    """One statement before the body, and one for each line of it, while it streams."""
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT 'before'"))

    def lines() -> Iterator[str]:
        with engine.connect() as connection:
            for number in range(rows):
                yield f"{connection.scalar(sa.text('SELECT :number'), {'number': number})}\n"

    return lines()


@app.get("/sleep")
def sleep() -> str:
    """Leaves its process id in a file, and sleeps."""
    Path("sleeping.tmp").write_text(str(os.getpid()))
    Path("sleeping.tmp").rename("sleeping")
    time.sleep(40)
    return ""
