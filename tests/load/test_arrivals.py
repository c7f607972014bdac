"""The open model counts from when a journey was due; the closed one asks less of a service that stalls."""

from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from pathlib import Path

from tests.load.test_run import ROOT, command, stub

USERS = 4
RATE = 40
OPTIONS = ("--users", str(USERS), "--run-time", "10s", "--p95-ms", "20000")


def requests_over(milliseconds: float, report: Path) -> int:
    """How many requests took longer."""
    seconds = json.loads((report / "locust.json").read_text())["course"]["seconds"].values()
    return sum(count for times in seconds for taken, count in times.items() if float(taken) > milliseconds)


def test_the_open_model_shows_a_stall_that_the_closed_one_hides(tmp_path: Path) -> None:
    models = {"closed": (), "open": ("--arrivals", str(RATE))}
    runs = {}
    with ExitStack() as stack:
        for model, options in models.items():
            (tmp_path / model).mkdir()
            url = stack.enter_context(stub("stalls"))
            started = command(url, tmp_path / model, *OPTIONS, *options)
            runs[model] = stack.enter_context(
                subprocess.Popen(
                    started, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
                )
            )
        printed = {model: run.communicate(timeout=110)[0] for model, run in runs.items()}
    # 1.5 s without an answer: each user of the closed model waits once; what nobody asked is in no figure.
    assert 1 <= requests_over(500, tmp_path / "closed/report") <= 2 * USERS, printed["closed"]
    # Forty journeys a second were due in it, those of the first second waited for more than half of one.
    assert requests_over(500, tmp_path / "open/report") >= 20, printed["open"]
    assert " journeys (" in printed["open"]
    assert " journeys (" not in printed["closed"]
