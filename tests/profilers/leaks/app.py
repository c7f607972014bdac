"""A shop of five routes, of which `GET /report` does what `VARIANT` says: leaks, or only looks like it.

Served by Gunicorn: `VARIANT=module_list gunicorn tests.profilers.leaks.app:app`.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import itertools
import os
import random
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from flask import Flask, jsonify, request
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from profilers import Profilers

app = Flask(__name__)
app.config.update(PROFILE="memory", PROFILE_BRAKE=0)
Profilers(app)

URL = f"sqlite:///{os.environ.get('SHOP', '')}"
engine = sa.create_engine(URL, connect_args={"check_same_thread": False})


class Base(DeclarativeBase):
    """Tables of the shop."""


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


if os.environ.get("SHOP"):
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        if not session.get(Item, 1):
            session.add_all(Item(name=f"item {number}") for number in range(50))
            session.commit()
engine.dispose()

numbers = itertools.count()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

# Leaks: each keeps a few kilobytes of every request.

history: list[bytes] = []


def module_list() -> None:
    history.append(os.urandom(3000))


class Catalogue:
    @functools.cache  # noqa: B019 (the leak)
    def page(self, key: float) -> list[float]:
        return [key + number for number in range(60)]


def cache_on_method() -> None:
    Catalogue().page(random.random())


seen: dict[str, dict[str, str]] = {}


def dict_by_request() -> None:
    seen[f"request-{next(numbers)}"] = {f"header-{number}": f"{number}" * 40 for number in range(100)}


def listener_per_request() -> None:
    body = [random.random() for _ in range(80)]
    sa.event.listen(Session, "after_commit", lambda session: body)


open_sessions: list[Session] = []


def open_session() -> None:
    session = Session(engine)
    session.scalars(sa.select(Item).limit(5)).all()
    open_sessions.append(session)
    if session.bind is not None:
        session.connection().close()  # the connection goes back; what the session has loaded stays


def native() -> None:
    libc.memset(libc.malloc(16_000), 1, 16_000)


# Healthy twins.

recent: OrderedDict[str, bytes] = OrderedDict()
lock = threading.Lock()


def bounded_cache() -> None:
    """Full after a hundred of them."""
    with lock:
        recent[f"{next(numbers)}"] = os.urandom(3000)
        if len(recent) > 100:
            recent.popitem(last=False)


MODULES = ("decimal", "xml.dom.minidom", "unittest.mock", "sqlite3", "http.cookiejar", "tarfile", "pydoc")


def lazy_import() -> None:
    """Another large module now and then, in the first part of the run."""
    number = next(numbers)
    if number % 15 == 0 and number // 15 < len(MODULES):
        importlib.import_module(MODULES[number // 15])


def large_response() -> None:
    """20 MB that are released with the response."""
    sys.getsizeof([bytes(200_000) for _ in range(100)])


def fragmentation() -> None:
    """Small and large blocks in turn, of which the large ones are released."""
    kept = [(bytes(300 + number % 500), bytes(8_000)) for number in range(400)]
    small = [pair[0] for pair in kept]
    del kept
    with lock:
        fragments[next(numbers) % 50] = small


fragments: dict[int, list[bytes]] = {}

pooled = sa.create_engine(URL, pool_size=4, max_overflow=4)


def growing_pool() -> None:
    """As many connections as requests run at once."""
    with Session(pooled) as session:
        session.scalars(sa.select(Item).limit(20)).all()


work: Callable[[], None] = globals()[os.environ.get("VARIANT", "bounded_cache")]


@app.get("/report")
def report() -> str:
    work()
    return "ok"


@app.get("/items")
def items() -> object:
    with Session(engine) as session:
        return jsonify([item.name for item in session.scalars(sa.select(Item).limit(20))])


@app.get("/items/<int:number>")
def item(number: int) -> object:
    with Session(engine) as session:
        found = session.get(Item, number)
        return jsonify(found.name if found else None)


@app.get("/search")
def search() -> object:
    words = request.args.get("q", "").split()
    return jsonify(sorted(word * 20 for word in words))


@app.get("/about")
def about() -> str:
    return Path(__file__).read_text()
