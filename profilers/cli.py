"""`flask profile …` and `python -m profilers …`: ask the store, switch profilers on and off, write reports.

The second needs no app: it reads the store that `--store` names, else FLASK_PROFILE_STORE, else
`instance/profiles` below the current folder.
"""

from __future__ import annotations

import functools
import json
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from flask.cli import ScriptInfo

from profilers import comparison, options, reports, switches
from profilers.console import capture
from profilers.profile import Profile
from profilers.reports import text
from profilers.reports.units import moment, visible
from profilers.store import Period, Store, StoreError, default_folder, open_store
from profilers.switches import ALL, SwitchError, parse_seconds, parse_share
from profilers.worker import store_of

if TYPE_CHECKING:
    from profilers.call_stack import Format

FORMATS = ("text", "json", "md", "html", "sarif", "speedscope")


class Group(click.Group):
    """Says what the user did wrong in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (StoreError, SwitchError, comparison.ComparisonError, capture.CaptureError, OSError) as error:
            raise click.ClickException(str(error)) from None
        except sqlite3.Error as error:
            raise click.ClickException(f"the store cannot be read: {error}") from None


@click.group(cls=Group)
@click.option("--store", metavar="PATH|URL", help="Folder, SQLite file or PostgreSQL URL of the profiles.")
@click.pass_context
def profile(context: click.Context, store: str | None) -> None:
    """What requests cost: profiles, findings, reports and switches."""
    context.meta["profilers.store"] = store


def _store(context: click.Context) -> Store:
    where = context.meta["profilers.store"] or os.environ.get("FLASK_PROFILE_STORE")
    if where:
        return open_store(where)
    script = context.find_object(ScriptInfo)
    if script is None:
        return open_store(default_folder(str(Path("instance").resolve())))
    return store_of(script.load_app())


def _existing(store: Store) -> Store:
    """The store, if it is there: a question must not create one where a path was mistyped."""
    path = store.database.path
    if path is not None and not path.exists():
        raise StoreError(
            f"there is no profile store at {path}: start the app with FLASK_PROFILE=queries,nplusone and "
            "send it a request, or name another with --store"
        )
    return store


def _command(name: str, *, creates: bool = False) -> Callable[[Callable[..., None]], click.Command]:
    """A command that is given the store first."""

    def decorate(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def with_store(*_: Any, **arguments: Any) -> None:
            store = _store(click.get_current_context())
            function(store if creates else _existing(store), **arguments)

        return profile.command(name)(with_store)

    return decorate


def _period(function: Callable[..., None]) -> Callable[..., None]:
    """The options that say which profiles a command is about; the function is given a Period."""

    @click.option("--endpoint", metavar="NAME", help="Only this one, such as 'GET /services*'.")
    @click.option("--last", metavar="TIME", help="Only the last 30s, 10m or 2h.")
    @functools.wraps(function)
    def with_period(store: Store, endpoint: str | None, last: str | None, **arguments: Any) -> None:
        since = time.time() - parse_seconds(last) if last else None
        function(store, Period(since=since, name=endpoint), **arguments)

    return with_period


def _nothing(period: Period) -> str:
    return text.EMPTY if period == Period() else text.NOTHING


@_command("list")
@_period
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000))
def list_profiles(store: Store, period: Period, limit: int) -> None:
    """The newest profiles, one line each."""
    rows = store.profiles(period, limit=limit)
    click.echo(text.profiles(rows) if rows else _nothing(period))


@_command("show")
@click.argument("profile_id", metavar="ID")
@click.option(
    "--call-stack",
    type=click.Choice(["text", "html", "speedscope"]),
    help="Draw what pyinstrument saw instead.",
)
def show(store: Store, profile_id: str, call_stack: Format | None) -> None:
    """One profile with its statements and findings."""
    found = store.profile(profile_id)
    if found is None:
        raise click.ClickException(f"there is no profile {profile_id}: `list` shows those that are kept")
    click.echo(text.profile(found) if call_stack is None else _call_stack(found, call_stack))


def _call_stack(found: Profile, form: Format) -> str:
    seen = found.sections.get("pyinstrument", {})
    if "skipped" in seen or not seen:
        reason = seen.get("skipped", "the profiler `pyinstrument` was off, or the request too fast")
        raise click.ClickException(f"{found.id} has no call stack: {reason}")
    try:
        from profilers.call_stack import render
    except ImportError as error:
        raise click.ClickException(f"{error}: {options.installation('pyinstrument')}") from None
    return visible(render(seen, form)) if form == "text" else render(seen, form)


@_command("export")
@_period
def export(store: Store, period: Period) -> None:
    """Every kept profile as a line of JSON, oldest first: statements, findings, timings."""
    for each in store.every_profile(period):
        click.echo(json.dumps(each.to_json()))


@_command("endpoints")
@_period
def endpoints(store: Store, period: Period) -> None:
    """Requests, times, statements and findings by endpoint."""
    rows = store.endpoints(period)
    click.echo(text.endpoints(rows) if rows else _nothing(period))


@_command("findings")
@_period
def findings(store: Store, period: Period) -> None:
    """What to mend: both lines and the fix."""
    click.echo(text.findings(store.findings(period)))


@_command("statements")
@_period
@click.option("--limit", default=30, show_default=True, type=click.IntRange(1, 10_000))
def statements(store: Store, period: Period, limit: int) -> None:
    """Statements across all endpoints, most time first."""
    click.echo(text.statements(store.statements(period, limit=limit)))


@_command("report")
@_period
@click.option("--format", "name", type=click.Choice(FORMATS), default="text", show_default=True)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="A file to write.")
def report(store: Store, period: Period, name: str, output: Path | None) -> None:
    """Everything about a period, in one of several formats."""
    drawn = reports.formats()[name](reports.build(store, period))
    if output is None:
        click.echo(drawn)
    else:
        output.write_text(drawn + "\n", encoding="utf-8")
        click.echo(f"wrote {output}", err=True)


@profile.command("compare")
@click.argument("before", metavar="[A", required=False)
@click.argument("after", metavar="B]", required=False)
@click.option("--last", metavar="TIME", help="Instead of A and B: the newest 10m or 2h of the store, and")
@click.option("--back", metavar="TIME", help="as long so much earlier (24h); right before when left out.")
@click.option("--fail-on", multiple=True, type=click.Choice(["new-findings", "more-statements"]))
@click.pass_context
def compare(
    context: click.Context,
    /,
    before: str | None,
    after: str | None,
    last: str | None,
    back: str | None,
    fail_on: tuple[str, ...],
) -> None:
    """Two stores or captures (folders, files or URLs), A before and B after; or two periods of one store.

    By endpoint: statements and rows of a request, its time with a 95 % interval; new and gone findings.
    """
    if before and after and not last and not back:
        compared = comparison.compare(_compared(before), _compared(after), where=(before, after))
    elif last and not before:
        store = _existing(_store(context))
        periods = comparison.periods(parse_seconds(last), back=parse_seconds(back) if back else None)
        sides = [comparison.Slice(store, period) for period in periods]
        where = [f"{moment(each.since or 0)} to {moment(each.until or 0)}" for each in periods]
        compared = comparison.compare(sides[0], sides[1], where=(where[0], where[1]))
    else:
        raise click.UsageError("expected two stores A and B, or --last and the store's own periods")
    click.echo(comparison.render(compared))
    broken = [what for what in fail_on if comparison.FAILURES[what](compared)]
    if broken:
        raise click.ClickException(f"{' and '.join(broken)}: see above")


def _compared(where: str) -> comparison.Compared:
    return capture.load(Path(where)) if where.endswith(".json") else _existing(open_store(where))


@profile.command("view")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--before", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Compare with.")
@click.option("--port", default=0, help="Of 127.0.0.1; any free one when left out.")
def view(file: Path, before: Path | None, port: int) -> None:
    """Open a capture that the console saved, without the app it was saved from. Ctrl-C ends it."""
    from profilers.console.viewer import serve

    serve(file, before, port)


@_command("clear")
@click.confirmation_option(prompt="Forget all profiles?")
def clear(store: Store) -> None:
    """Forget all profiles."""
    store.clear()
    click.echo(f"forgot all profiles of {store.database}", err=True)


@_command("on", creates=True)
@click.argument("profilers", nargs=-1)
@click.option("--endpoint", default=ALL, metavar="NAME", help="Only this one, such as 'GET /services*'.")
@click.option("--sample", default="100%", show_default=True, help="Share of the requests: 5% or 0.05.")
@click.option("--for", "duration", default="10m", show_default=True, help="How long: 30s, 10m or 2h.")
def turn_on(store: Store, profilers: tuple[str, ...], endpoint: str, sample: str, duration: str) -> None:
    """Switch profilers on in all workers, for a time; without names, resume those of the configuration."""
    names = tuple(name for given in profilers for name in options.split_names(given))
    known = options.available()
    switches.turn_on(store, names, endpoint, parse_share(sample), parse_seconds(duration), known=known)
    _say_status(store)


@_command("off", creates=True)
@click.argument("profilers", nargs=-1)
@click.option("--for", "duration", help="How long; until `on` when left out.")
def turn_off(store: Store, profilers: tuple[str, ...], duration: str | None) -> None:
    """Switch profilers off in all workers; without names, all of them."""
    names = tuple(name for given in profilers for name in options.split_names(given))
    seconds = parse_seconds(duration) if duration else None
    switches.turn_off(store, names, seconds, known=options.available())
    _say_status(store)


@profile.command("memory")
@click.option("--duration", default="300s", show_default=True, help="How long: 30s, 10m or 2h.")
@click.option("--interval", default="30s", show_default=True, help="Time between two snapshots of a worker.")
@click.option(
    "--frames", default=5, show_default=True, type=click.IntRange(1, 100), help="Of each traceback."
)
@click.option("--pid", type=int, help="Only this worker, or the workers of this Gunicorn.")
@click.option("--url", help="Only the service that listens there, on this machine.")
@click.option("--stored", is_flag=True, help="Judge what the store has of the last day; measure nothing.")
@click.option("--compare", nargs=2, type=click.Path(path_type=Path), metavar="A B", help="Two written runs.")
@click.option("--fail-on-leak", is_flag=True, help="End with status 1 if it leaks.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="The JSON to write.")
@click.pass_context
def memory(
    context: click.Context,
    /,
    duration: str,
    interval: str,
    compare: tuple[Path, Path] | None,
    stored: bool,
    fail_on_leak: bool,
    **choice: Any,
) -> None:
    """Does it leak, where? Trace all workers of the running service for a time, under its own load."""
    try:
        from profilers.memory import commands, service, watch
    except ImportError as error:
        raise click.ClickException(f"{error}: {options.installation('memory')}") from None
    seconds, every = parse_seconds(duration), parse_seconds(interval)
    if min(seconds, every) < 1:
        raise click.UsageError("--duration and --interval: expected a second at least")
    try:
        if compare:
            commands.compare(*compare)
            return
        by_process = not context.meta["profilers.store"] and (choice["pid"] or choice["url"])
        store = None if by_process else _store(context)
        leaks = commands.measure(store, duration=seconds, interval=every, judge_stored=stored, **choice)
    except (service.ServiceError, watch.RunError) as error:
        raise click.ClickException(str(error)) from None
    if leaks and fail_on_leak:
        raise click.exceptions.Exit(1)


@profile.group("memray", cls=Group)
def memray() -> None:
    """Every allocation of every worker, native ones too; reports over all workers."""
    try:
        import memray  # noqa: F401
    except ImportError:
        raise click.ClickException(f"memray is not installed: {options.installation('memray')}") from None


@memray.command("run", context_settings={"ignore_unknown_options": True})
@click.option("--native", is_flag=True, help="Follow the stacks of native code as well.")
@click.option("--for", "duration", default="5m", show_default=True, help="How long to track: 30s, 10m or 2h.")
@click.option(
    "--megabytes", default=200, show_default=True, type=click.IntRange(1), help="Of a worker's file."
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def memray_run(
    context: click.Context, /, native: bool, duration: str, megabytes: int, command: tuple[str, ...]
) -> None:
    """Start the service (`gunicorn`, or COMMAND after --) with a tracker in each worker."""
    from profilers import allocation_commands

    status = allocation_commands.run(
        _store(context), command or ("gunicorn",), native=native, seconds=parse_seconds(duration),
        megabytes=megabytes,
    )  # fmt: skip
    raise click.exceptions.Exit(status)


def _memray_report(kind: str, text: str) -> None:
    @memray.command(kind, help=text)
    @click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
    @click.option(
        "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="The page to write."
    )
    @click.pass_context
    def command(context: click.Context, /, folder: Path | None, output: Path | None) -> None:
        from profilers import allocation_commands
        from profilers.allocation_reports import CaptureError

        try:
            allocation_commands.report(_store(context), kind, folder, output)
        except CaptureError as error:
            raise click.ClickException(str(error)) from None


for _kind, _text in {
    "flamegraph": "What was held at the peak, as memray's flame graph.",
    "table": "The same as memray's table.",
    "tree": "The same as a tree in the terminal.",
    "stats": "Sizes, allocators and the largest places.",
    "leaks": "What was still held when tracking ended, by line.",
}.items():
    _memray_report(_kind, _text + " Of FOLDER, a run; the newest by default.")


@_command("status")
def status(store: Store) -> None:
    """What was switched at run time, and what the workers say of themselves."""
    _say_status(store)


def _say_status(store: Store) -> None:
    now = time.time()
    found = switches.status(store)
    for switch in found.switches.on:
        click.echo(
            f"on: {', '.join(switch.profilers)} for {switch.endpoint}, "
            f"{_percent(switch.sample)} of the requests, {switch.until - now:.0f} s to go"
        )
    for name, until in found.switches.off.items():
        left = "until turned on" if until is None else f"{until - now:.0f} s to go"
        click.echo(f"off: {'all of the configuration' if name == ALL else name}, {left}")
    if not found.switches.on and not found.switches.off:
        click.echo("nothing was switched at run time; the configuration holds")
    for worker in found.workers:
        click.echo(
            f"worker {worker.host}:{worker.pid}: profilers take {worker.cost:.1%} of a request, "
            f"{_percent(worker.sampling)} of the chosen requests are profiled, "
            f"{worker.left_out} profiles left out"
        )
    if not found.workers:
        click.echo(
            "no worker has been seen in the last 30 s: workers listen when the app was started with "
            "FLASK_PROFILE=standby, or with the name of a profiler"
        )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
