"""`nplusone`: which relationship, queried on which line and touched on which, costs how many statements.

A finding names the cause, the line that queried the parents, the line that touched them, and a fix that is
valid code for that cause and for the whole chain. See docs/find-an-n-plus-one.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from profilers.collect import Recording
from profilers.nplusone.allowances import Allowances, is_allowed
from profilers.nplusone.chains import Chains
from profilers.nplusone.loads import column_findings, relationship_findings, subject_of
from profilers.nplusone.loops import loop_findings, loops
from profilers.plugin import Profiler, option
from profilers.profile import Profile


@dataclass(frozen=True)
class NPlusOneOptions:
    threshold: int = option(5, "So many different parents (rows, keys) make an N+1; fewer are let pass.")
    allow: tuple[str, ...] = option((), "Subjects that may be loaded one at a time: `Post.author, Audit*`.")


class NPlusOne(Profiler[NPlusOneOptions]):
    name = "nplusone"
    options_class = NPlusOneOptions
    needs = frozenset({"statements", "orm"})

    def __init__(self, options: NPlusOneOptions) -> None:
        super().__init__(options)
        self._allowances = Allowances(options.allow)

    def examine(self, profile: Profile) -> None:
        assert isinstance(profile, Recording)
        threshold = self.options.threshold
        allowances = self._allowances.of(profile)
        if profile.statement_count < threshold and not allowances:
            return
        chains = Chains(profile)
        if allowances:
            chains.drop(lambda load, record: is_allowed(allowances, subject_of(load, record), record))
        profile.findings += relationship_findings(chains, threshold)
        profile.findings += column_findings(profile, chains, threshold)
        profile.findings += loop_findings(loops(profile, chains.others, threshold, allowances), threshold)
        if allowances:
            profile.findings += self._allowances.stale(profile, allowances)
