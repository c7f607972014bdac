"""`nplusone`: which relationship, queried on which line and touched on which, costs how many statements.

A finding names the cause, the line that queried the parents, the line that touched them, and a fix that is
valid code for that cause and for the whole chain. See docs/find-an-n-plus-one.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from profilers.collect import Recording
from profilers.nplusone.chains import Chains
from profilers.nplusone.loads import column_findings, relationship_findings
from profilers.plugin import Profiler, option
from profilers.profile import Profile


@dataclass(frozen=True)
class NPlusOneOptions:
    threshold: int = option(5, "So many different parents (rows, keys) make an N+1; fewer are let pass.")


class NPlusOne(Profiler[NPlusOneOptions]):
    name = "nplusone"
    options_class = NPlusOneOptions
    needs = frozenset({"statements", "orm"})

    def examine(self, profile: Profile) -> None:
        assert isinstance(profile, Recording)
        threshold = self.options.threshold
        if profile.statement_count < threshold:
            return
        chains = Chains(profile)
        profile.findings += relationship_findings(chains, threshold)
        profile.findings += column_findings(profile, chains, threshold)
