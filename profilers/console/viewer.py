"""`python -m profilers view capture.json`: the console over a file, on this machine, without the app."""

from __future__ import annotations

from pathlib import Path

import click
from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server

from profilers.console.access import is_local
from profilers.console.app import create_console
from profilers.console.capture import load
from profilers.console.views import Source


class _Quiet(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """No line for each request."""


def create_viewer(file: Path, before: Path | None = None) -> Flask:
    """The console over one capture, or over two to compare; only for this machine.

    Raises:
        CaptureError: one of them is no capture.
    """
    source = Source(reader=load(file), before=load(before) if before else None, title=file.name)
    return create_console(source, is_local)


def serve(file: Path, before: Path | None, port: int) -> None:
    """Serve it until Ctrl-C.

    Raises:
        CaptureError, OSError: it is no capture; the port is taken.
    """
    server = make_server(
        "127.0.0.1", port, create_viewer(file, before), threaded=True, request_handler=_Quiet
    )
    click.echo(f"{file} is at http://127.0.0.1:{server.server_port}/ (Ctrl-C ends it)")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        click.echo("")
    finally:
        server.server_close()
