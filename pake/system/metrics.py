"""`/metrics` for Prometheus: requests and their durations by route, summed over all workers.

Under Gunicorn each worker has a slot, and a replacement carries on with the counters of the dead: nothing is
lost and nothing counted twice.
"""

from __future__ import annotations

import os
import time

import prometheus_client
from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Counter, Histogram, values
from prometheus_client.multiprocess import MultiProcessCollector

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 0.8, 1.0, 2.0, 5.0, 10.0)
"""Seconds; the thresholds of the load scenarios are among them."""


def init_app(app: Flask) -> None:
    """Count every request; for all workers together with a worker slot and PROMETHEUS_MULTIPROC_DIR."""
    registry = CollectorRegistry()
    shared = "PAKE_WORKER_SLOT" in os.environ and "PROMETHEUS_MULTIPROC_DIR" in os.environ
    if shared:
        values.ValueClass = values.MultiProcessValue(lambda: os.environ["PAKE_WORKER_SLOT"])  # type: ignore[no-untyped-call]
    requests = Counter(
        "pake_http_requests", "Requests answered.", ["method", "route", "status"], registry=registry
    )
    durations = Histogram(
        "pake_http_request_duration_seconds",
        "From the first line of the app to the finished answer.",
        ["method", "route"],
        registry=registry,
        buckets=_BUCKETS,
    )
    exposed = CollectorRegistry() if shared else registry
    if shared:
        MultiProcessCollector(exposed)  # type: ignore[no-untyped-call]

    @app.before_request
    def begin() -> None:
        g.began = time.perf_counter()

    @app.after_request
    def count(response: Response) -> Response:
        route = request.url_rule.rule if request.url_rule else "unmatched"
        method = request.method if request.url_rule else "any"
        requests.labels(method, route, response.status_code).inc()
        durations.labels(method, route).observe(time.perf_counter() - g.began)
        return response

    app.extensions["pake_metrics"] = exposed


def exposition(app: Flask) -> Response:
    """The metrics in Prometheus's text format."""
    return Response(
        prometheus_client.generate_latest(app.extensions["pake_metrics"]),
        content_type=prometheus_client.CONTENT_TYPE_LATEST,
    )
