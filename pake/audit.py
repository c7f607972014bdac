"""The audit log: who signed in, who was refused, whose rights changed. One line an event, in `pake.audit`.

It is written whatever `LOG_LEVEL` says. A line names the event, the account's number, the client's address
and the request; of names that were typed it has a keyed digest only, since people mistype passwords there.
"""

from __future__ import annotations

from typing import Any

import structlog
from flask import has_request_context, request

LOGGER = "pake.audit"
_log = structlog.get_logger(LOGGER)


def audit(event: str, *, refused: bool = False, **fields: Any) -> None:
    """Write one event; `refused` when somebody did not get what was asked for."""
    if has_request_context():
        fields["address"] = request.remote_addr
    (_log.warning if refused else _log.info)(event, **fields)
