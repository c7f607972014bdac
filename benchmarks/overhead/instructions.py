"""Counts the CPU instructions of a request, where valgrind is installed: exact on a busy machine too.

Only the thread that serves the request is counted: the writer's thread works when it likes.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

WARM_UP, COUNTED = 15, 30
_SUMMARY = re.compile(r"^summary: (\d+)", re.MULTILINE)


def count(command: Sequence[str], requests: Sequence[str], env: Mapping[str, str], folder: Path) -> list[int]:
    """Instructions of one request of each kind.

    Args:
        command: starts `benchmarks.overhead.child`.
        folder: takes callgrind's files; must be empty.

    Raises:
        FileNotFoundError: valgrind is not installed.
        subprocess.CalledProcessError: the child failed.
    """
    out = folder / "callgrind"
    # The child marks each batch's begin and end, and callgrind writes one file from mark to mark.
    valgrind = ["valgrind", "--quiet", "--tool=callgrind", "--dump-before=getpriority"]
    valgrind += ["--separate-threads=yes", f"--callgrind-out-file={out}"]
    subprocess.run(
        [*valgrind, *command],
        check=True,
        input="".join(f"{name} {number}\n" for name in requests for number in (WARM_UP, COUNTED)),
        stdout=subprocess.DEVNULL,
        text=True,
        env={**env, "PYTHONHASHSEED": "0"},
    )
    parts = [Path(f"{out}.{4 * index + 4}-01") for index in range(len(requests))]
    return [int(_SUMMARY.findall(part.read_text())[0]) // COUNTED for part in parts]
