"""The Grafana dashboards as data: `make dashboards` writes what Grafana is provisioned with.

Two pages. *Service* is what a client feels: requests, latency, errors. *Inside* is why: statements, pool,
hashes, findings, and each worker's memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "grafana" / "dashboards"
DATASOURCE = {"type": "prometheus", "uid": "prometheus"}
COLUMNS = 24
"""The width of Grafana's grid."""


@dataclass(frozen=True)
class Panel:
    """One chart, or one figure. Each expression has the legend that its lines get."""

    title: str
    unit: str
    """Grafana's name: `s`, `reqps`, `percentunit`, `bytes`, `short`."""
    queries: tuple[tuple[str, str], ...]
    description: str = ""
    figure: bool = False
    """A figure of the moment instead of lines over time."""


@dataclass(frozen=True)
class Dashboard:
    """One page; its rows are as wide as the grid."""

    uid: str
    title: str
    rows: tuple[tuple[Panel, ...], ...]


SERVICE = Dashboard(
    "pake-service",
    "PAKE: service",
    (
        (
            Panel("Requests", "reqps", (("sum(pake:requests:rate5m)", "all"),), figure=True),
            Panel(
                "p95",
                "s",
                (
                    (
                        "histogram_quantile(0.95, "
                        "sum by (le) (rate(pake_http_request_duration_seconds_bucket[5m])))",
                        "all routes",
                    ),
                ),
                figure=True,
            ),
            Panel(
                "Errors",
                "percentunit",
                (
                    (
                        "(sum(rate(pake_http_requests_total{status=~'5..'}[5m])) or vector(0)) "
                        "/ sum(pake:requests:rate5m)",
                        "share of 5xx",
                    ),
                ),
                figure=True,
            ),
            Panel(
                "In progress", "short", (("sum(pake_http_requests_in_progress)", "requests"),), figure=True
            ),
            Panel(
                "Alerts firing",
                "short",
                (("count(ALERTS{alertstate='firing'}) or vector(0)", ""),),
                figure=True,
            ),
        ),
        (
            Panel("Requests by route", "reqps", (("pake:requests:rate5m", "{{route}}"),)),
            Panel(
                "Answers by status",
                "reqps",
                (("sum by (status) (rate(pake_http_requests_total[5m]))", "{{status}}"),),
            ),
        ),
        (
            Panel("p95 by route", "s", (("pake:duration:p95_5m", "{{route}}"),)),
            Panel(
                "All requests",
                "s",
                tuple(
                    (
                        f"histogram_quantile({share}, "
                        "sum by (le) (rate(pake_http_request_duration_seconds_bucket[5m])))",
                        f"p{round(share * 100)}",
                    )
                    for share in (0.5, 0.95, 0.99)
                ),
            ),
        ),
        (
            Panel("Share of errors by route", "percentunit", (("pake:errors:share5m", "{{route}}"),)),
            Panel(
                "Password hashes",
                "s",
                (
                    (
                        "histogram_quantile(0.95, "
                        "sum by (le) (rate(pake_password_hash_duration_seconds_bucket[5m])))",
                        "computing, p95",
                    ),
                    (
                        "histogram_quantile(0.95, "
                        "sum by (le) (rate(pake_password_hash_wait_seconds_bucket[5m])))",
                        "waiting for a turn, p95",
                    ),
                    ("rate(pake_password_hashes_refused_total[5m])", "refused, per second"),
                ),
            ),
        ),
    ),
)

INSIDE = Dashboard(
    "pake-inside",
    "PAKE: inside",
    (
        (
            Panel(
                "Statements per request",
                "short",
                (("pake:statements:per_request5m", "{{route}}"),),
                "What a change of code moves, and a busy machine does not.",
            ),
            Panel(
                "Database time per request",
                "s",
                (
                    (
                        "sum by (route) (rate(pake_database_statement_duration_seconds_sum[5m])) "
                        "/ (pake:requests:rate5m > 0)",
                        "{{route}}",
                    ),
                ),
            ),
        ),
        (
            Panel(
                "Wait for a connection",
                "s",
                (
                    ("pake:pool_wait:p95_5m", "p95"),
                    ("rate(pake_pool_timeouts_total[5m])", "gave up, per second"),
                ),
            ),
            Panel(
                "Connections",
                "short",
                (("sum(pake_pool_connections_in_use)", "in use"), ("sum(pake_pool_size)", "at most")),
            ),
            Panel(
                "Database errors",
                "short",
                (("sum by (error) (rate(pake_database_errors_total[5m]))", "{{error}}"),),
            ),
        ),
        (
            Panel(
                "N+1 by route and relationship",
                "short",
                (("sum by (route, relationship) (pake_n_plus_one_total)", "{{route}} {{relationship}}"),),
                "Since the service started; `flask profile findings` has the lines and the fix.",
            ),
            Panel(
                "Findings",
                "short",
                (("sum by (kind) (pake_profiler_findings_total)", "{{kind}}"),),
            ),
            Panel(
                "Profilers",
                "short",
                (
                    ("rate(pake_profiler_profiles_total[5m])", "profiles per second"),
                    ("rate(pake_profiler_profiles_left_out_total[5m])", "left out, per second"),
                    ("pake_profiler_sampling_ratio", "share that the brake leaves"),
                ),
            ),
        ),
        (
            Panel(
                "Memory of each worker's own",
                "bytes",
                (("pake_worker_memory_bytes{kind='uss'}", "worker {{worker}}"),),
                "Without what it shares with others. A leak is a slope that does not end.",
            ),
            Panel("Memory of all workers", "bytes", (("sum(pake_worker_memory_bytes{kind='pss'})", "all"),)),
        ),
        (
            Panel(
                "Cores used",
                "short",
                (("rate(pake_worker_cpu_seconds_total[1m])", "worker {{worker}}"),),
            ),
            Panel("Open files", "short", (("pake_worker_open_files", "worker {{worker}}"),)),
            Panel(
                "Age of the workers",
                "s",
                (("time() - pake_worker_start_time_seconds", "worker {{worker}}"),),
            ),
        ),
    ),
)

DASHBOARDS = (SERVICE, INSIDE)


def as_grafana(dashboard: Dashboard) -> dict[str, Any]:
    """The dashboard in Grafana's own form."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["pake"],
        "schemaVersion": 39,
        "timezone": "browser",
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "graphTooltip": 1,
        "editable": False,
        "panels": list(_panels(dashboard)),
    }


def _panels(dashboard: Dashboard) -> Iterator[dict[str, Any]]:
    number, y = 0, 0
    for row in dashboard.rows:
        width, height = COLUMNS // len(row), 4 if row[0].figure else 8
        for column, panel in enumerate(row):
            number += 1
            yield {
                "id": number,
                "type": "stat" if panel.figure else "timeseries",
                "title": panel.title,
                "description": panel.description,
                "datasource": DATASOURCE,
                "gridPos": {"x": column * width, "y": y, "w": width, "h": height},
                "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
                "targets": [
                    {
                        "refId": chr(ord("A") + index),
                        "datasource": DATASOURCE,
                        "expr": expr,
                        "legendFormat": legend,
                    }
                    for index, (expr, legend) in enumerate(panel.queries)
                ],
            }
        y += height


def write(folder: Path = FOLDER) -> None:
    """Write each dashboard to a file of its own."""
    for dashboard in DASHBOARDS:
        text = json.dumps(as_grafana(dashboard), indent=1)
        (folder / f"{dashboard.uid}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
