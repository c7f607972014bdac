"""`python -m profilers memray run | flamegraph | table | tree | stats | leaks`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from profilers import allocation_reports as reports
from profilers.allocations import runs_folder
from profilers.store import Store

PAGES = {"flamegraph": reports.flamegraph, "table": reports.table}


def run(store: Store, command: Sequence[str], *, native: bool, seconds: float, megabytes: int) -> int:
    """Start the service with a tracker in each worker; its exit status."""
    name = time.strftime("%Y%m%d-%H%M%S")
    profilers = os.environ.get("FLASK_PROFILE", "")
    environment = {
        **os.environ,
        "FLASK_PROFILE": f"{profilers},memray" if profilers else "memray",
        "FLASK_PROFILE_STORE": str(store.database),
        "FLASK_PROFILE_MEMRAY_RUN": name,
        "FLASK_PROFILE_MEMRAY_NATIVE": str(native),
        "FLASK_PROFILE_MEMRAY_SECONDS": str(seconds),
        "FLASK_PROFILE_MEMRAY_MEGABYTES": str(megabytes),
    }
    if command[0] == "gunicorn":  # of this environment, whatever PATH says
        command = [sys.executable, "-m", *command]
    try:
        service = subprocess.Popen(command, env=environment)  # noqa: S603 (the user's own command)
    except OSError as error:
        raise click.ClickException(f"{command[0]}: {error.strerror}") from None
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: service.send_signal(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the service as well
    status = service.wait()
    folder = runs_folder(store, str(Path("instance").resolve())) / name
    files = len(list(folder.glob("*.bin")))
    click.echo(
        f"{files} files in {folder}: python -m profilers memray flamegraph | table | tree | stats", err=True
    )
    return status


def report(store: Store, kind: str, folder: Path | None, output: Path | None) -> None:
    """Write or print one report on a run, the newest unless a folder is named.

    Raises:
        CaptureError: there is nothing to read.
    """
    folder = folder or reports.newest_run(runs_folder(store, str(Path("instance").resolve())))
    if kind == "stats":
        reports.stats(folder)
        return
    captures = reports.read(folder, leaks=kind == "leaks")
    if kind in PAGES:
        path = output or Path(f"memray-{kind}-{folder.name}.html")
        with open(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "w", encoding="utf-8") as page:
            PAGES[kind](captures, page)
        for line in reports.workers(captures):
            click.echo(line, err=True)
        click.echo(
            f"wrote {path}: {captures.bytes / 1e6:.2f} MB in {len(captures.workers)} workers", err=True
        )
    else:
        click.echo(reports.tree(captures) if kind == "tree" else reports.lines(captures))
