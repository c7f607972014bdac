"""Findings for a code-scanning page: SARIF 2.1.0 (OASIS), one result a finding, on the line to mend."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from profilers.profile import Finding, Location
from profilers.reports import Report

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def render(report: Report) -> str:
    """The report's findings as SARIF text."""
    return render_findings(row.finding for row in report.findings)


def render_findings(findings: Iterable[Finding]) -> str:
    """Findings from anywhere, such as a test run, as SARIF text."""
    listed = list(findings)
    rules = sorted({(_rule(finding), finding.kind, finding.cause) for finding in listed})
    run = {
        "tool": {
            "driver": {
                "name": "flask-profilers",
                "version": version("flask-profilers"),
                "rules": [
                    {"id": rule, "shortDescription": {"text": f"{kind}: {cause}".replace("_", " ")}}
                    for rule, kind, cause in rules
                ],
            }
        },
        "results": [_result(finding) for finding in listed],
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2)


def _rule(finding: Finding) -> str:
    return f"{finding.kind}/{finding.cause}"


def _result(finding: Finding) -> dict[str, Any]:
    main = finding.origin or finding.location
    result: dict[str, Any] = {
        "ruleId": _rule(finding),
        "level": "warning",
        "message": {"text": finding.message or finding.subject},
        "partialFingerprints": {"finding/v1": finding.fingerprint},
    }
    if main:
        result["locations"] = [_location(main)]
    if finding.origin and finding.location and finding.origin != finding.location:
        touched = {**_location(finding.location), "id": 1, "message": {"text": "caused here"}}
        result["relatedLocations"] = [touched]
    return result


def _location(place: Location) -> dict[str, Any]:
    path = PurePath(place.file)
    uri = path.as_uri() if path.is_absolute() else quote(path.as_posix(), errors="replace")
    return {
        "physicalLocation": {
            "artifactLocation": {"uri": uri},
            "region": {"startLine": max(place.line, 1)},
        },
        "logicalLocations": [{"name": place.function, "kind": "function"}],
    }
