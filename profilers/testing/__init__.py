"""Checks on statements for a test: at most so many, no N+1, no growth with the data.

    with max_queries(3):
        client.get("/services")

    with no_n_plus_one():
        client.get("/services?include=health_checks")

    assert_constant_queries(lambda: client.get("/posts"), populate=make_posts)

They need no plugin and no Flask app; `profilers.pytest_plugin` offers them as fixtures and markers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from profilers.profile import Finding, Profile
from profilers.recording import record
from profilers.testing.growth import growing


class QueryError(AssertionError):
    """A check on statements that did not hold; the message alone is enough to mend the code."""


@contextmanager
def max_queries(limit: int) -> Iterator[Profile]:
    """Fail when the block sends more than `limit` statements.

    Raises:
        QueryError: with the statements, how often each ran, and their lines.
    """
    with record(f"max_queries({limit})", profile="queries") as profile:
        yield profile
    if profile.statement_count > limit:
        raise QueryError(over_limit(profile, limit))


@contextmanager
def no_n_plus_one() -> Iterator[Profile]:
    """Fail when the block holds an N+1.

    Raises:
        QueryError: with each finding: what, how often, both lines and the fix.
    """
    with record("no_n_plus_one", profile="nplusone") as profile:
        yield profile
    found = n_plus_ones(profile)
    if found:
        raise QueryError(described(found))


def assert_constant_queries(
    call: Callable[[], object], populate: Callable[[int], object], scales: Sequence[int] = (2, 5, 10)
) -> None:
    """Fail when `call` sends more statements the more data there is.

    Args:
        call: the code under test, such as a request of the test client. It must not find the rows in a
            session that `populate` filled: what is in the identity map is not loaded.
        populate: makes the data hold that many rows; called with each scale, smallest first. Adding as
            many rows instead serves as well: the verdict rests on growth, not on the exact number.
        scales: sizes of the data, two at least; choose them below the length of a page.

    Raises:
        QueryError: names each statement that grows, its line, and the N+1 behind it where there is one.
        ValueError: fewer than two scales.
    """
    profiles: dict[int, Profile] = {}
    for scale in sorted(scales):
        populate(scale)
        with record(f"n={scale}", profile="queries,nplusone") as profile:
            call()
        profiles[scale] = profile
    grown = growing(profiles)
    if grown:
        lines = ["the number of statements grows with the data:", *(str(growth) for growth in grown)]
        lines += [finding.message for finding in n_plus_ones(profiles[max(profiles)])]
        raise QueryError("\n".join(lines))


def n_plus_ones(profile: Profile) -> list[Finding]:
    """The N+1 findings of a profile."""
    return [finding for finding in profile.findings if finding.kind == "n_plus_one"]


def described(findings: Sequence[Finding]) -> str:
    """The findings as the text of a failing test."""
    return "\n\n".join(finding.message for finding in findings)


def over_limit(profile: Profile, limit: int) -> str:
    """What was allowed, what happened and where, as the text of a failing test."""
    counted = Counter((statement.shape, statement.location) for statement in profile.statements)
    lines = [f"{profile.statement_count} statements where {limit} are allowed:"]
    for (shape, location), count in counted.most_common():
        lines += [f"  {count} x {shape}", f"      at {location or 'no line of the project'}"]
    if profile.left_out:
        lines.append(f"  and {profile.left_out} more that were counted but not kept")
    return "\n".join(lines)
