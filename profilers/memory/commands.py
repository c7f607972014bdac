"""`flask profile memory` and `python -m profilers memory`: measure the running service, and judge it."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from profilers.memory import report, service, snapshot_folder
from profilers.memory.watch import read_lines, stored, watch, write_run
from profilers.store import Store


def measure(
    store: Store | None,
    *,
    duration: float,
    interval: float,
    frames: int,
    pid: int | None,
    url: str | None,
    judge_stored: bool,
    output: Path | None,
) -> bool:
    """Measure, print, write; whether it leaks.

    Args:
        store: None when the process is to say which one it uses.

    Raises:
        ServiceError, StoreError: there is nothing to measure.
    """
    if url is not None:
        pid = service.process_at(url)
    if store is None:
        assert pid is not None
        store = service.store_of_process(pid)
    folder = snapshot_folder(store, str(Path("instance").resolve()))
    if judge_stored:
        run = stored(store, folder)
    else:
        before = signal.signal(signal.SIGTERM, _interrupted)
        try:
            run = watch(
                store, folder, seconds=duration, interval=interval, frames=frames, pid=pid,
                say=lambda line: click.echo(line, err=True),
            )  # fmt: skip
        finally:
            signal.signal(signal.SIGTERM, before)
    click.echo(report.render(run))
    path = output or Path(time.strftime("memory-%Y%m%d-%H%M%S.json"))
    write_run(run, path)
    click.echo(f"wrote {path}", err=True)
    return run.verdict.answer == "leak"


def compare(before: Path, after: Path) -> None:
    """Print two runs side by side.

    Raises:
        RunError: one of the files is not a run's.
    """
    click.echo(report.compared(read_lines(before), read_lines(after)))


def _interrupted(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
