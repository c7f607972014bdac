"""The security headers that every answer carries, also the refusals that never reach Flask.

They are those of the OWASP Secure Headers Project for an API: nothing is embedded, run, cached or sniffed. A
view that says otherwise, such as the page of `/docs` with its style sheet, keeps its own word.
"""

from __future__ import annotations

from collections.abc import Iterable

_NEVER = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

SECURITY = (
    ("X-Content-Type-Options", "nosniff"),
    (
        "Content-Security-Policy",
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)
OVER_TLS = ("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
"""RFC 6797 section 7.2: only over a connection that is secure."""


def missing(given: Iterable[tuple[str, str]], *, secure: bool) -> list[tuple[str, str]]:
    """The headers to add to an answer that has the `given` ones."""
    names = {name.lower() for name, _ in given}
    every = (*SECURITY, OVER_TLS) if secure else SECURITY
    return [header for header in every if header[0].lower() not in names]
