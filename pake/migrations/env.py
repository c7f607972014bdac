"""How Alembic reaches the database: through the app, and one process at a time.

Several hosts may start at once and each upgrades the schema: a PostgreSQL advisory lock lets the first do
the work and the others find it done.
"""

from alembic import context
from flask import current_app
from sqlalchemy import Connection, text

from pake.database import take_any_time

LOCK = 5_017_412_663
"""Any number that nothing else in the database locks."""

database = current_app.extensions["migrate"].db


def migrate(connection: Connection) -> None:
    """Run the wanted migrations on this connection, or wait until another process has."""
    context.configure(connection=connection, target_metadata=database.metadata, compare_server_default=True)
    with context.begin_transaction():
        take_any_time(connection)
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        context.run_migrations()


if context.is_offline_mode():
    context.configure(dialect_name="postgresql", target_metadata=database.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    with database.engine.connect() as connection:
        migrate(connection)
        connection.commit()
