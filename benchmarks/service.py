"""The service on a database of its own, filled with demo data, for benchmarks."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import flask_migrate
import sqlalchemy as sa
from apiflask import APIFlask

from pake import create_app, embedded
from pake.config import Settings, load_settings
from pake.embedded.supervisor import ROLE
from pake.extensions import db
from pake.registry.demo import add_demo_services


@contextmanager
def postgres() -> Iterator[Path]:
    """The folder of an embedded server that is there for the block alone."""
    for name in [name for name in os.environ if name.lower() in Settings.model_fields]:
        del os.environ[name]  # what is measured is the service as it comes
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        os.chmod(place, 0o711)  # under root the server is another user's, and must get in
        folder = Path(place) / "postgres"
        with embedded.server(folder):
            yield folder


@contextmanager
def service(
    folder: Path, name: str, *, services: int, health_checks: int, metrics: int = 0
) -> Iterator[APIFlask]:
    """The service on a new database `name` of that server, in an application context of its own."""
    engine = sa.create_engine(
        embedded.superuser_url(folder), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
    )
    with engine.connect() as connection:
        connection.exec_driver_sql(f'CREATE DATABASE "{name}" OWNER {ROLE}')
    url = sa.make_url(str(embedded.status(folder).url)).set(database=name)
    settings = load_settings(
        database_url=url.render_as_string(hide_password=False),
        instance_path=folder.parent / name,
        log_level="ERROR",
        _env_file=None,
    )
    app = create_app(settings)
    with app.app_context():
        flask_migrate.upgrade()
        add_demo_services(db.session(), services=services, health_checks=health_checks, metrics=metrics)
        db.session.commit()
        with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("SET statement_timeout = 0"))
            connection.execute(sa.text("VACUUM ANALYZE"))  # now, so that autovacuum does not meanwhile
    try:
        yield app
    finally:
        app.extensions["profilers"].stop_worker()  # it writes into the folder that is removed next
        with app.app_context():
            db.engine.dispose()
