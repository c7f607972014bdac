"""Whether the service is about to stop: /readyz says so first, so that no new client is sent here."""

from __future__ import annotations

import mmap

_begun = mmap.mmap(-1, 1)
"""Shared by Gunicorn's master, which sets it, and the workers that it forks."""


def begin() -> None:
    """Be no longer ready, in all workers."""
    _begun[0] = 1


def begun() -> bool:
    """Whether it is."""
    return bool(_begun[0])
