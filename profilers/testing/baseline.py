"""Adopt the N+1 check in a suite that already has some: known findings are written down, new ones fail.

The baseline holds fingerprints, not lines, so edits above a known finding do not make it new. An entry that
the whole run no longer saw is reported, so that the file shrinks as the code is mended.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from profilers.profile import Finding


def read(path: Path) -> frozenset[str]:
    """The fingerprints of the known findings; none when there is no file.

    Raises:
        ValueError: the file is not JSON, or not a baseline of this version.
    """
    if not path.exists():
        return frozenset()
    match json.loads(path.read_text(encoding="utf-8")):
        case {"version": 1, "findings": dict(findings)}:
            return frozenset(findings)
    raise ValueError(f"{path} is not a baseline of version 1: write it anew with --nplusone-baseline-update")


def write(path: Path, findings: Iterable[Finding]) -> None:
    """Write the fingerprints of `findings`, each with its subject for the reader."""
    known = {finding.fingerprint: f"{finding.cause} {finding.subject}" for finding in findings}
    data = {"version": 1, "findings": dict(sorted(known.items()))}
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
