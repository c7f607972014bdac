"""`flask pake …`: accounts and maintenance."""

from __future__ import annotations

import json
import re
import sys

import click
from flask.cli import AppGroup
from sqlalchemy import delete, select

from pake import capacity
from pake.auth import accounts, passwords
from pake.auth.models import Role, User
from pake.errors import Problem
from pake.extensions import db, settings
from pake.registry.demo import add_demo_services

cli = AppGroup("pake", help="Accounts and maintenance of the service.")

DEMO_ADMIN = "demo-admin"

password_stdin = click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
role_option = click.option("--role", type=click.Choice(["user", "admin"]), default="user", show_default=True)


def _password(from_stdin: bool) -> str:
    """The password that is given, else a new one, shown once."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    password = passwords.generate(24)
    click.echo(f"password: {password}")
    return password


def _user_id(name: str) -> int:
    user_id = db.session.scalar(select(User.id).where(User.username == name))
    if user_id is None:
        raise click.ClickException(f"there is no account {name}")
    return user_id


@cli.command()
@click.argument("name")
@role_option
@click.option("--email")
@click.option("--full-name")
@password_stdin
def create_user(name: str, role: str, email: str | None, full_name: str | None, password_stdin: bool) -> None:
    """Create an account. Without --password-stdin its password is generated and shown once."""
    try:
        accounts.create(name, _password(password_stdin), email=email, full_name=full_name, role=role)  # type: ignore[arg-type]
    except Problem as problem:
        raise click.ClickException(_said(problem)) from None
    click.echo(f"created {role} {name}")


@cli.command()
@click.argument("name")
@password_stdin
def set_password(name: str, password_stdin: bool) -> None:
    """Give an account a new password; all its tokens become invalid."""
    user_id, password = _user_id(name), _password(password_stdin)
    try:
        accounts.require_good_password(password, "password", name)
    except Problem as problem:
        raise click.ClickException(_said(problem)) from None
    accounts.set_password(user_id, password)
    db.session.commit()


@cli.command()
@click.argument("prefix")
@click.argument("count", type=click.IntRange(1, 10_000))
@role_option
def create_users(prefix: str, count: int, role: Role) -> None:
    """Create accounts PREFIX-1 and on, for a load; prints their passwords as lines of JSON."""
    for number in range(1, count + 1):
        name, password = f"{prefix}-{number}", passwords.generate(24)
        accounts.create(name, password, role=role)
        click.echo(json.dumps({"username": name, "password": password}))


@cli.command()
@click.argument("prefix")
def delete_users(prefix: str) -> None:
    """Delete the accounts that create-users made with this prefix."""
    made = User.username.regexp_match(f"^{re.escape(prefix)}-[0-9]+$")
    db.session.execute(delete(User).where(made))
    db.session.commit()


@cli.command()
@click.argument("name")
def delete_user(name: str) -> None:
    """Delete an account with its tokens."""
    accounts.delete_account(_user_id(name))


@cli.command()
@click.argument("name")
@click.option("--undo", is_flag=True, help="Let the account in again.")
def disable_user(name: str, undo: bool) -> None:
    """Shut an account out, with all tokens it has."""
    accounts.disable(_user_id(name), disabled=not undo)


@cli.command()
@click.option("--services", default=100, show_default=True, type=click.IntRange(0, 100_000))
@click.option("--checks", default=50, show_default=True, type=click.IntRange(0, 1_000_000))
@click.option("--metrics", default=50, show_default=True, type=click.IntRange(0, 1_000_000))
def demo_data(services: int, checks: int, metrics: int) -> None:
    """Add services with a history and an administrator; what is there already stays as it is.

    --checks and --metrics are rows for each service.
    """
    added = add_demo_services(db.session(), services=services, health_checks=checks, metrics=metrics)
    db.session.commit()
    click.echo(f"added {added} services, each with {checks} health checks and {metrics} metrics")
    if not db.session.scalar(select(User.id).where(User.username == DEMO_ADMIN)):
        password = _password(from_stdin=False)
        accounts.create(DEMO_ADMIN, password, email=None, full_name="Demo administrator", role="admin")
        click.echo(f"created admin {DEMO_ADMIN}")


@cli.command()
@click.option("--hosts", default=1, show_default=True, type=click.IntRange(1, 10_000), help="Of this size.")
@click.option("--workers", type=click.IntRange(1, 1000), help="Of each host. [default: as configured here]")
def check_capacity(hosts: int, workers: int | None) -> None:
    """Whether PostgreSQL has room for all connections; exit status 1 if not."""
    demand = capacity.Demand(hosts, workers or settings.workers, settings.database_pool_size)
    with db.engine.connect() as connection:
        room = capacity.room(connection)
    for line in capacity.report(demand, room):
        click.echo(line)
    if shortage := capacity.shortage(demand, room):
        raise click.ClickException(shortage)
    click.echo("it fits")


@cli.command()
def prune() -> None:
    """Delete expired sign-ins and forgotten wrong passwords."""
    families, attempts = accounts.prune()
    click.echo(f"deleted {families} expired sign-ins and {attempts} names with old wrong passwords")


def _said(problem: Problem) -> str:
    return " ".join([problem.detail, *(error["message"] for error in problem.fields.get("errors", ()))])
