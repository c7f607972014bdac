"""A store whose every text is an attack on whoever draws it."""

from __future__ import annotations

from profilers.profile import Finding, Location, Profile, Statement
from profilers.store import Store

HTML = "<script>alert(1)</script><img src=x onerror=alert(2)>"
MARKDOWN = "a | b ` c ` [d](javascript:e) **f** \n\n# g"
TERMINAL = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202egnp.exe\r"
TEXT = f"{HTML} {MARKDOWN} {TERMINAL} {{{{ 7 * 7 }}}}"


def fill(store: Store) -> Profile:
    """One request and one block, hostile in every field that comes from the app."""
    place = Location(f"{TEXT}.py", 7, TEXT)
    statement = Statement(shape=f"SELECT '{TEXT}'", started=0.001, duration=0.002, rows=3, location=place)
    finding = Finding(
        kind="n_plus_one",
        cause="lazy_relationship",
        subject=f"Post.{TEXT}",
        count=10,
        location=place,
        origin=Location(f"{TEXT}.html", 3, "<template>"),
        fix=f".options({TEXT})",
        message=f"N+1: {TEXT}",
        duration=0.02,
    )
    for name, kind in ((f"GET /{TEXT}", "request"), (TEXT, "block")):
        profile = Profile(name, 1_760_000_000.0, kind=kind, duration=0.05, status=200, host=TEXT, worker=7)
        profile.id = f"{kind}1"
        profile.statements = [statement]
        profile.findings = [finding]
        profile.timings = {"database": 0.002, "total": 0.05}
        store.add([profile])
    return profile
