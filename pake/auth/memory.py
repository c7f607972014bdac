"""What a worker remembers of access tokens, so that most requests ask the database nothing about theirs.

A token's signature and claims are worked out once. Whether its sign-in still holds is asked for all those in
use together, with one statement now and then, in place of one for each of them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pake.auth.models import Role

VISIT_SECONDS = 60
"""For so long after its last request a sign-in is asked about together with the others."""
MOST_TOGETHER = 1_000
"""Sign-ins asked about with one statement; each of the rest is asked about when it is used."""


@dataclass(frozen=True)
class Account:
    """Who is asking, and by which sign-in."""

    id: int
    username: str
    email: str | None
    full_name: str | None
    role: Role
    family_id: str


@dataclass(slots=True)
class _Kept:
    account: Account
    asked: float
    """When the database was asked, by the clock, as `used`."""
    used: float


class Accounts:
    """Accounts by token family. Each is trusted for some seconds after the database was asked about it.

    When half of these are over, one request asks about all that are in use, so that the others need not.
    """

    def __init__(
        self, seconds: float, size: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.seconds = seconds
        self.size = size
        self.clock = clock
        self._kept: dict[str, _Kept] = {}
        self._ask_at = 0.0

    def get(self, family_id: str) -> Account | None:
        """The account, if it can be trusted still."""
        kept = self._kept.get(family_id)
        now = self.clock()
        if kept is None or now - kept.asked >= self.seconds:
            return None
        kept.used = now
        return kept.account

    def due(self) -> list[str]:
        """The families to ask about now; none but for one request in half of the seconds."""
        now = self.clock()
        if now < self._ask_at:
            return []
        self._ask_at = now + self.seconds / 2
        in_use = []
        for family_id, kept in list(self._kept.items()):
            if now - kept.used < VISIT_SECONDS:
                in_use.append(family_id)
            else:
                self.forget(family_id)
        return in_use[:MOST_TOGETHER]

    def renew(self, asked: float, families: Iterable[str], found: Mapping[str, Account]) -> None:
        """What the database told of families that were `due`: those not found have ended."""
        for family_id in families:
            kept = self._kept.get(family_id)
            if kept is None:  # forgotten while the answer, which may be older, was on its way
                continue
            if family_id in found:
                kept.account, kept.asked = found[family_id], asked
            else:
                self.forget(family_id)

    def keep(self, asked: float, account: Account) -> None:
        """Remember an account as the database told it when it was asked."""
        if len(self._kept) >= self.size:
            self._kept.clear()
        if self.seconds:
            self._kept[account.family_id] = _Kept(account, asked, self.clock())

    def forget(self, family_id: str) -> None:
        """Ask about it next time."""
        self._kept.pop(family_id, None)


class Claims(NamedTuple):
    """What is read of an access token that was found right."""

    user_id: int
    family_id: str
    expires_at: float


class Verified:
    """Access tokens whose signature and claims were found right: a worker works that out once for each.

    Their digests are kept, not they. Whether a token has expired or its family has ended is asked every time.
    """

    def __init__(self, size: int = 10_000) -> None:
        self.size = size
        self._kept: dict[bytes, Claims] = {}

    def get(self, token: str) -> Claims | None:
        """Its claims, if it was seen before and has not expired."""
        claims = self._kept.get(_digest(token))
        return claims if claims and claims.expires_at > time.time() else None

    def keep(self, token: str, claims: Claims) -> None:
        """Remember that the token is right."""
        if len(self._kept) >= self.size:
            self._kept.clear()
        self._kept[_digest(token)] = claims


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
