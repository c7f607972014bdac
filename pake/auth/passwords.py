"""Passwords: rules (NIST SP 800-63B-4), a score, generation, and Argon2id hashes."""

from __future__ import annotations

import re
import secrets
import string
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path

import argon2
import argon2.exceptions
from zxcvbn_rs_py import zxcvbn

from pake.auth.hashing import hashing

MINIMUM_LENGTH = 15
"""NIST SP 800-63B-4 section 3.1.1.2, for a password that is the only factor."""

MAXIMUM_BYTES = 1024
"""Far above the 64 characters that NIST asks to accept; bounds the work of one request."""

# OWASP's minimum for Argon2id; argon2-cffi's own default costs five times as much.
_hasher = argon2.PasswordHasher(memory_cost=19_456, time_cost=2, parallelism=1)

_NOBODYS_HASH = f"$argon2id$v=19$m=19456,t=2,p=1$bm8gc3VjaCBhY2NvdW50IQ${'A' * 43}"
"""Matches no password, and takes as long to find out as a real one."""


def normalise(password: str) -> str:
    """The password as it is hashed: RFC 8265 section 4.2.2, so that any keyboard gives the same bytes."""
    spaced = "".join(" " if unicodedata.category(c) == "Zs" else c for c in password)
    return unicodedata.normalize("NFC", spaced)


# ---- hashing


def hash_password(password: str) -> str:
    """The Argon2id hash of a password. Raises Problem 503 when too many are waiting."""
    return hashing.run(lambda: _hasher.hash(normalise(password)))


def verify_password(password: str, password_hash: str | None) -> bool:
    """Whether the password matches; None is nobody's hash, and costs the same.

    Raises Problem 503 when too many are waiting.
    """
    try:
        return hashing.run(lambda: _hasher.verify(password_hash or _NOBODYS_HASH, normalise(password)))
    except argon2.exceptions.VerifyMismatchError:
        return False


# ---- rules


@dataclass(frozen=True)
class Verdict:
    """What is to be said about a password: `errors` forbid it, the rest is advice."""

    errors: list[str]
    strength_score: int
    """zxcvbn's, 0 to 4."""
    suggestions: list[str]


def judge(password: str, *context: str | None) -> Verdict:
    """Apply the rules. `context` holds words an attacker would try first: the account's name and address."""
    password = normalise(password)
    words = [
        word.lower()
        for text in context
        if text
        for word in (text, *re.split(r"[^\w]+|_", text))
        if len(word) > 2
    ]
    errors = []
    if len(password) < MINIMUM_LENGTH:
        errors.append(f"It must have at least {MINIMUM_LENGTH} characters.")
    if words and _made_of(password, frozenset(words)):
        errors.append("It is made of the account's own name.")
    elif _repeats(password) or _made_of(password, common_words() | frozenset(words)):
        errors.append(
            "It is common: made of words, rows of keys, digits or repetitions that are tried first."
        )
    entropy = zxcvbn(password, words)
    advice = entropy.feedback.suggestions if entropy.feedback else []
    return Verdict(errors, int(entropy.score), [str(item) for item in advice])


_NEIGHBOURS = (
    "abcdefghijklmnopqrstuvwxyz",
    "qwertyuiop",
    "asdfghjkl",
    "zxcvbnm",
    "qwertzuiop",
    "azertyuiop",
    "qazwsxedcrfvtgbyhnujmikolp",
    "1q2w3e4r5t6y7u8i9o0p",
)
_RUNS = tuple(row for line in _NEIGHBOURS for row in (line, line[::-1]))
_LEET = {"0": "o", "1": "il", "3": "e", "4": "a", "5": "s", "7": "t", "8": "b", "@": "a", "$": "s", "!": "i"}


@cache
def common_words() -> frozenset[str]:
    """The blocklist, common_words.txt beside this file: words that common long passwords are made of."""
    lines = Path(__file__).with_name("common_words.txt").read_text().splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))


def _repeats(password: str) -> bool:
    """Whether it is a few characters over and over."""
    return any(password == (password[:size] * len(password))[: len(password)] for size in range(1, 6))


def _made_of(password: str, words: frozenset[str]) -> bool:
    """Whether it is but these words, rows of keys, repetitions, digits, signs and a stray letter or two.

    Counts the fewest strays with which each position can be reached: linear in the length.
    """
    text = password.lower()
    starts: dict[str, list[str]] = {}
    for word in words:
        starts.setdefault(word[0], []).append(word)
    strays = list(range(len(text) + 1))
    for at in range(len(text)):
        strays[at + 1] = min(strays[at + 1], strays[at] + 1)
        for size in _pieces(text, at, starts):
            strays[at + size] = min(strays[at + size], strays[at])
    return strays[-1] <= 2


def _pieces(text: str, at: int, starts: dict[str, list[str]]) -> Iterator[int]:
    """Lengths of the worthless pieces that begin at a position."""
    first, rest = text[at], text[at + 1 : at + 40]
    if first.isascii() and not first.isalpha():
        yield 1
    for letter in (first, *_LEET.get(first, "")):
        for word in starts.get(letter, ()):
            if len(rest) >= len(word) - 1 and all(map(_alike, rest, word[1:])):
                yield len(word)
    if rest.startswith(first * 2):
        yield 1 + len(rest) - len(rest.lstrip(first))
    for row in _RUNS:
        if (place := row.find(first)) >= 0:
            pairs = zip(row[place:], first + rest, strict=False)
            shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            yield from range(3, shared + 1)


def _alike(given: str, letter: str) -> bool:
    return given == letter or letter in _LEET.get(given, "")


# ---- generation

_ALPHABET = "".join(c for c in string.ascii_letters + string.digits + "!#%+-.:=?@_~" if c not in "0O1lI")


def generate(length: int) -> str:
    """A random password of characters that are not mistaken for each other: 6 bits each."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
