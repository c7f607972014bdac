"""Traces: what a collector is sent, from workers that were forked."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.servers import gunicorn, wait_for

CANARY = "a canary that nobody may see"


class Collector(ThreadingHTTPServer):
    """Takes traces by OTLP over HTTP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[bytes] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def spans(self) -> list[Span]:
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        return [
            span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        body = self.rfile.read(int(self.headers["Content-Length"]))
        zipped = self.headers.get("Content-Encoding") == "gzip"
        self.server.bodies.append(gzip.decompress(body) if zipped else body)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def attributes(span: Span) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in span.attributes}


def test_requests_and_their_statements_are_traced_and_values_are_not(
    tmp_path: Path, database_url: str, collector: Collector
) -> None:
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "WEB_CONCURRENCY": "2"}
    with gunicorn(tmp_path, DATABASE_URL=database_url, **settings) as server:
        server.get("/readyz")
        form = {"username": f"{CANARY} name", "password": CANARY}
        answer = requests.post(f"{server.url}/auth/token?x={CANARY}", form, timeout=30)
        assert answer.status_code in (401, 422)
    # Sent at the latest when the workers ended.
    wait_for(lambda: any(span.name == "POST /auth/token" for span in collector.spans))
    (sign_in,) = [span for span in collector.spans if span.name == "POST /auth/token"]
    assert attributes(sign_in)["pake.request_id"] == answer.headers["X-Request-ID"]
    below = [span for span in collector.spans if span.parent_span_id == sign_in.span_id]
    assert any(attributes(span).get("db.statement", "").startswith("SELECT") for span in below)
    assert not any("readyz" in span.name for span in collector.spans)
    sent = b"".join(collector.bodies)
    assert b"canary" not in sent
    assert b"pake" in sent
