"""Every option of the service: one typed field each, read from the environment or from `.env`.

`load_settings()` reads them and reports all mistakes at once, one line each. docs/configuration.md is
generated from this file.
"""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import limits
from flask.helpers import get_debug_flag
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

PROFILERS = frozenset({"queries", "nplusone", "slow-queries", "pyinstrument", "memory", "memray", "standby"})
"""What `FLASK_PROFILE` may name; installed packages add to it by the entry-point group `flask_profilers`."""

MINIMUM_KEY_BYTES = 32
"""RFC 7518 section 3.2: a key for HS256 is as long as the hash, or longer."""

MINIMUM_KEY_CHARACTERS = 8
"""Different ones: a random key has more, even in hexadecimal, and `aaaa…` has not."""

_MAKE_A_KEY = "make one with: python -c 'import secrets; print(secrets.token_urlsafe(48))'"

Names = Annotated[tuple[str, ...], NoDecode]
"""A comma-separated list."""

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


class SettingsError(Exception):
    """The configuration is wrong; the message holds one line for each mistake."""


class Settings(BaseSettings):
    """The options. An argument overrides the environment, which overrides `.env`."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        populate_by_name=True,
    )

    pake_env: Literal["development", "production"] = Field(
        "development", description="`production` refuses what is only convenient, such as a generated key."
    )
    instance_path: Path = Field(
        Path("instance"),
        description="Folder for the embedded database, the generated key and worker metrics.",
    )
    bind: str = Field(
        "127.0.0.1:8000",
        description="Address that Gunicorn listens on: `host:port` or `unix:path`.",
        pattern=r"^(unix:.+|(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+):\d{1,5})$",
    )
    web_concurrency: int | None = Field(
        None, ge=1, le=1000, description="Gunicorn's worker processes. Unset: one a core, two at least."
    )
    allowed_hosts: Names = Field(
        ("localhost", "127.0.0.1", "[::1]"),
        description="Host names that requests may name, comma-separated; `.example.org` stands for a domain "
        "with its subdomains. The host of `BIND` is always allowed.",
    )
    max_content_length: int = Field(
        1_048_576, ge=1024, description="Largest request body in bytes; a larger one is answered with 413."
    )

    request_timeout_seconds: float = Field(
        8,
        gt=0,
        le=600,
        description="In which a request must arrive, head and body; then its client gets a 408 and is "
        "disconnected. 8 seconds take 1 MiB over a link of 1.1 Mbit/s: raise it for large bodies over slower "
        "ones. An answer must be taken within it too.",
    )
    queue_timeout_seconds: float = Field(
        5, gt=0, le=60, description="How long a request may wait for a thread; then it gets a 503."
    )

    shutdown_delay_seconds: float = Field(
        2,
        ge=0,
        le=300,
        description="After TERM: how long `/readyz` says 503 while requests are still taken, so that a load "
        "balancer sends new ones elsewhere. Make it longer than the time between two of its probes.",
    )

    database_url: SecretStr | None = Field(
        None, description="PostgreSQL URL. Unset: the embedded PostgreSQL under `INSTANCE_PATH`."
    )
    database_pool_size: int = Field(
        8, ge=1, le=1000, description="Connections a worker keeps; make it the number of its threads."
    )
    database_pool_timeout_seconds: float = Field(
        0.8, gt=0, le=60, description="How long a request waits for a free connection before it gets a 503."
    )
    database_connect_timeout_seconds: int = Field(
        5, ge=1, le=60, description="How long opening a connection may take."
    )
    database_statement_timeout_ms: int = Field(
        5000, ge=1, description="Time limit of one statement; PostgreSQL cancels it, the client gets a 503."
    )

    database_replica_url: SecretStr | None = Field(
        None,
        description="URL of a streaming standby, for the routes that may read there; on all hosts or none. "
        "Unset: everything is read from `DATABASE_URL`.",
    )
    database_replica_lag_seconds: float = Field(
        10,
        gt=0,
        description="A standby that is further behind is not read; one's own writes are always seen.",
    )

    secret_key: SecretStr | None = Field(
        None,
        description=f"Key that signs tokens, at least {MINIMUM_KEY_BYTES} bytes. Unset: generated into "
        "`INSTANCE_PATH/secret-key`, mode 0600 (refused when `PAKE_ENV=production`).",
    )
    previous_secret_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (),
        description="Keys that `SECRET_KEY` replaced, comma-separated: tokens they signed are accepted until "
        "they expire. Take a key out to end them at once.",
    )
    access_token_minutes: int = Field(15, ge=1, le=1440, description="Life of an access token.")
    refresh_token_days: int = Field(30, ge=1, le=365, description="Life of a refresh token.")
    token_leeway_seconds: int = Field(
        10, ge=0, le=120, description="Clock difference that is forgiven when a token is checked."
    )
    token_memory_seconds: float = Field(
        3,
        ge=0,
        le=4,
        description="How long a worker trusts a token without asking the database again. Signing out and "
        "disabling an account take that long to reach all workers; 0 asks each time.",
    )
    sign_in_attempts: int = Field(
        5,
        ge=1,
        le=100,
        description="Wrong passwords in a row for one name; the next try is answered with 429.",
    )
    sign_in_lock_seconds: int = Field(
        900,
        ge=1,
        le=86_400,
        description="How long a name stays locked after that, from the last wrong password.",
    )
    hashes_in_parallel: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Password hashes that all workers compute at the same time, of those that share "
        "`INSTANCE_PATH`. Unset: one a core.",
    )
    hashes_waiting: int = Field(
        4, ge=0, le=1000, description="Sign-ins of one worker that may wait for a hash; more get a quick 503."
    )

    auth_rate_limit: str = Field(
        "3000 per minute",
        description="Sign-ins, registrations and password checks from one address; Flask-Limiter's notation. "
        "Generous, because a load test comes from one address; `none` switches it off.",
    )
    redis_url: SecretStr | None = Field(
        None,
        description="Redis that counts them for all workers; needs the package `redis`. "
        "Unset, or while Redis is away: each worker counts for itself.",
    )

    history_limit: int = Field(
        20, ge=1, le=200, description="Newest health checks and metrics shown with each service."
    )

    flask_profile: Names = Field(
        (), description="Profilers to switch on, comma-separated. See `flask profile list`."
    )
    flask_profile_console: bool = Field(
        False, description="The profilers' web console at `/__profilers__/`, for those who have its token."
    )
    flask_profile_console_token: SecretStr | None = Field(
        None,
        description="Token of the console, at least 16 characters. Unset: generated into "
        "`INSTANCE_PATH/profiles/console-token`, mode 0600.",
    )
    otel_exporter_otlp_endpoint: str | None = Field(
        None,
        description="OpenTelemetry collector that traces are sent to, such as `http://127.0.0.1:4318`; needs "
        "the extra `tracing`. OpenTelemetry's other `OTEL_` variables hold as well.",
        pattern=r"^https?://[^/\s]+",
    )
    sql_echo: bool = Field(False, description="Log every statement.")
    sql_log_level: Level = Field("WARNING", description="Level of the logger `sqlalchemy.engine`.")
    slow_query_threshold_ms: float = Field(1000, ge=0, description="A statement that takes longer is slow.")
    log_slow_queries: bool = Field(True, description="Log slow statements.")
    detect_n_plus_1: bool = Field(False, description="The N+1 detector without naming it in `FLASK_PROFILE`.")
    max_queries_per_request: int = Field(
        50, ge=1, description="More statements than this in one request: a warning in the log and a finding."
    )

    log_level: Level = Field("INFO", description="Level of the service's own logs.")
    log_format: Literal["console", "json"] = Field("console", description="Logs for people or for machines.")

    @property
    def workers(self) -> int:
        """Gunicorn's worker processes."""
        return self.web_concurrency or max(2, len(os.sched_getaffinity(0)))

    @property
    def hashes(self) -> int:
        """Password hashes at a time, of all workers together."""
        return self.hashes_in_parallel or len(os.sched_getaffinity(0))

    @property
    def hash_threads(self) -> int:
        """Threads that a worker hashes in."""
        return max(1, self.hashes // self.workers)

    @property
    def profilers(self) -> tuple[str, ...]:
        """The profilers to run: those of `FLASK_PROFILE`, and those that do what other settings ask for."""
        asked = {"queries": True, "slow-queries": self.log_slow_queries, "nplusone": self.detect_n_plus_1}
        return (*self.flask_profile, *(name for name, wanted in asked.items() if wanted))

    @property
    def console_token(self) -> str:
        """The console's token; empty when none is set."""
        token = self.flask_profile_console_token
        return token.get_secret_value() if token else ""

    @field_validator("allowed_hosts", "flask_profile", "previous_secret_keys", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(name for part in value.split(",") if (name := part.strip()))
        return value

    @field_validator("sql_log_level", "log_level", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @field_validator("flask_profile")
    @classmethod
    def _known_profilers(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known = PROFILERS | {entry.name for entry in entry_points(group="flask_profilers")}
        if unknown := [name for name in names if name not in known]:
            raise ValueError(
                f"there is no profiler {', '.join(unknown)}; known are {', '.join(sorted(known))}"
            )
        return names

    @field_validator("auth_rate_limit")
    @classmethod
    def _notation(cls, value: str) -> str:
        try:
            if value != "none":
                limits.parse_many(value)
        except ValueError:
            raise ValueError("expected something like `100 per minute;1000 per hour`, or `none`") from None
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            if not value.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
                raise ValueError("expected a URL such as redis://host:6379/0")
            if find_spec("redis") is None:
                raise ValueError("expected the package `redis` to be installed: pip install redis")
        return value

    @field_validator("otel_exporter_otlp_endpoint")
    @classmethod
    def _tracing(cls, value: str | None) -> str | None:
        if value is not None and find_spec("opentelemetry") is None:
            raise ValueError("expected the extra `tracing` to be installed: see docs/watch-the-service.md")
        return value

    @field_validator("database_url", "database_replica_url")
    @classmethod
    def _postgresql(cls, value: SecretStr | None) -> SecretStr | None:
        """Plain `postgresql://` means psycopg 3 since SQLAlchemy 2.1; many hosts hand out `postgres://`."""
        if value is None:
            return None
        try:
            url = make_url(value.get_secret_value())
        except ArgumentError:
            raise ValueError("expected a URL such as postgresql://user:password@host:5432/database") from None
        if url.drivername not in {"postgres", "postgresql", "postgresql+psycopg2"}:
            raise ValueError(f"expected postgresql://…, not {url.drivername}://…")
        url = url.set(drivername="postgresql+psycopg2")
        return SecretStr(url.render_as_string(hide_password=False))

    @field_validator("secret_key")
    @classmethod
    def _strong_key(cls, value: SecretStr | None) -> SecretStr | None:
        key = value.get_secret_value() if value else ""
        if value is not None and (length := len(key.encode())) < MINIMUM_KEY_BYTES:
            raise ValueError(f"expected at least {MINIMUM_KEY_BYTES} bytes, not {length}; {_MAKE_A_KEY}")
        if value is not None and (different := len(set(key))) < MINIMUM_KEY_CHARACTERS:
            raise ValueError(
                f"expected {MINIMUM_KEY_CHARACTERS} different characters, not {different}; {_MAKE_A_KEY}"
            )
        return value

    @field_validator("previous_secret_keys")
    @classmethod
    def _strong_keys(cls, values: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for value in values:
            cls._strong_key(value)
        return values

    @model_validator(mode="after")
    def _production(self) -> Settings:
        if self.pake_env == "production" and self.secret_key is None:
            raise ValueError("SECRET_KEY must be set when PAKE_ENV=production")
        if self.pake_env == "production" and get_debug_flag():
            raise ValueError("FLASK_DEBUG must not be set when PAKE_ENV=production: it shows code to anyone")
        return self


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process.

    Raises SettingsError with one line for each mistake: setting, value, what was expected.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [_mistake(entry) for entry in error.errors(include_url=False)]
        raise SettingsError("\n".join(lines)) from None


_SECRET = {
    "database_url",
    "database_replica_url",
    "secret_key",
    "previous_secret_keys",
    "redis_url",
    "flask_profile_console_token",
}


def _mistake(entry: Any) -> str:
    """One line about one of pydantic's error entries."""
    message = str(entry["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    if not entry["loc"]:
        return f"{message} (in the environment or .env)"
    name = str(entry["loc"][0]).lower()
    value = "" if name in _SECRET else f"={entry['input']}"
    if not message.startswith(("expected", "there is no")):
        message = f"expected {message}"
    return f"{name.upper()}{value}: {message} (in the environment or .env)"


def documentation() -> str:
    """docs/configuration.md, which `make docs` writes."""
    rows = [
        f"| `{name.upper()}` | {_shown(field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join([_INTRODUCTION, "| name | default | meaning |", "|---|---|---|", *rows, ""])


_INTRODUCTION = """\
# Configuration

<!-- Generated by `make docs`; edit the descriptions in pake/config.py. -->

Every option is an environment variable, or a line `NAME=value` in a file `.env` in the working directory; the
environment wins, and an empty value counts as unset. The service reads them when it starts. If some are wrong
it does not start and prints one line for each: its name, its value and what was expected. Values of options
that hold secrets are never printed.
"""


def _shown(default: Any) -> str:
    if default is None:
        return "unset"
    value = ",".join(default) if isinstance(default, tuple) else str(default)
    return f"`{value}`" if value else "empty"
