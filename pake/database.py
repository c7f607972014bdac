"""Which PostgreSQL the service uses, and how its connections are made."""

from __future__ import annotations

from pake import embedded
from pake.config import Settings, SettingsError


def database_url(settings: Settings) -> str:
    """The URL that is set, else that of the embedded PostgreSQL, which must be running.

    Raises SettingsError when there is neither, or it belongs to another user.
    """
    if settings.database_url:
        return settings.database_url.get_secret_value()
    folder = settings.instance_path / "postgres"
    try:
        url = embedded.status(folder).url
    except embedded.EmbeddedPostgresError as error:
        raise SettingsError(str(error)) from error
    if url:
        return url
    raise SettingsError(
        f"DATABASE_URL is not set and no embedded PostgreSQL runs in {folder}: start one with "
        f"`python -m pake.embedded --folder {folder} run`, or run `gunicorn`, which starts it"
    )


def engine_options(settings: Settings) -> dict[str, object]:
    """What SQLAlchemy's engine is created with: a bounded pool, and a time limit on everything."""
    return {
        "pool_size": settings.database_pool_size,
        "max_overflow": 0,
        "pool_timeout": settings.database_pool_timeout_seconds,
        "hide_parameters": True,
        "connect_args": {
            "connect_timeout": settings.database_connect_timeout_seconds,
            "options": f"-c statement_timeout={settings.database_statement_timeout_ms} -c timezone=UTC",
            "application_name": "pake",
        },
    }
