"""Passwords: what is refused and why, and what is accepted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from apiflask import APIFlask

from pake.auth import passwords


@pytest.fixture
def hashing(app: APIFlask) -> Iterator[None]:
    """In the context of an app, whose settings bound the hashes."""
    with app.app_context():
        yield


@pytest.mark.parametrize(
    "password",
    [
        "quietriverstones",
        "sieben Reiher im Moor",
        "correct zebra fog lamp",
        "🦊🌊🪨🌲🔥🌙⭐🍄🐢🎈🧭🚲🪁🎻🧊",
        "пять тихих камней реки",
        "xk-27-Qv-91-Lm-04",
    ],
)
def test_long_and_uncommon_is_enough(password: str) -> None:
    assert passwords.judge(password, "bob").errors == []


@pytest.mark.parametrize("password", ["", "short", "14 characters!"])
def test_short_is_refused(password: str) -> None:
    assert any("15 characters" in error for error in passwords.judge(password).errors)


@pytest.mark.parametrize(
    "password",
    [
        "summer2026summer",
        "Summer-Summer-2026!",
        "passwordpassword",
        "P@ssw0rdP@ssw0rd1",
        "letmein letmein 1",
        "qwertyuiopasdfgh",
        "1q2w3e4r5t6y7u8i9o0p",
        "123456789012345",
        "aaaaaaaaaaaaaaaa",
        "xkqjxkqjxkqjxkqj",
        "iloveyouprincess",
        "correcthorsebatterystaple",
        "abcdefghijklmnop",
        "xsummer2026summer",
        "zyxwvutsrqponmlk",
    ],
)
def test_common_is_refused_however_long(password: str) -> None:
    (error,) = passwords.judge(password).errors
    assert "common" in error


def test_a_common_word_among_others_is_no_reason_to_refuse() -> None:
    assert passwords.judge("summer pilgrim gravel").errors == []


@pytest.mark.parametrize("password", ["wilhelmina.tellmann", "Wilhelmina-2026!!", "tellmanntellmann"])
def test_the_own_name_is_refused(password: str) -> None:
    (error,) = passwords.judge(password, "wilhelmina.tellmann").errors
    assert "own name" in error


def test_the_longest_password_is_judged_too() -> None:
    long = passwords.MAXIMUM_BYTES // 9
    assert passwords.judge("password1" * long).errors
    assert passwords.judge("heron,elm" * long).errors == []


def test_the_score_is_advice_and_goes_from_0_to_4() -> None:
    weak, strong = passwords.judge("passwordpassword"), passwords.judge("xk-27-Qv-91-Lm-04")
    assert (weak.strength_score, strong.strength_score) == (0, 4)
    assert weak.suggestions
    assert not strong.suggestions


def test_a_generated_password_passes_the_rules() -> None:
    made = {passwords.generate(15) for _ in range(50)}
    assert len(made) == 50
    assert all(passwords.judge(password).errors == [] for password in made)


@pytest.mark.usefixtures("hashing")
def test_a_hash_matches_its_password_only() -> None:
    stored = passwords.hash_password("quiet river stones")
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert passwords.verify_password("quiet river stones", stored)
    assert not passwords.verify_password("quiet river stone", stored)


@pytest.mark.usefixtures("hashing")
def test_nobody_has_no_password() -> None:
    assert not passwords.verify_password("quiet river stones", None)
    assert not passwords.verify_password("", None)


@pytest.mark.usefixtures("hashing")
def test_one_password_typed_on_two_keyboards_is_the_same() -> None:
    composed, decomposed, odd_space = (
        "caf\u00e9 au lait, vite",
        "cafe\u0301 au lait, vite",
        "caf\u00e9\u00a0au lait, vite",
    )
    stored = passwords.hash_password(composed)
    assert passwords.verify_password(decomposed, stored)
    assert passwords.verify_password(odd_space, stored)
