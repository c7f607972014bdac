"""A finished run with all that is known about it: what every form of the report is drawn from."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from locustfiles import processes
from locustfiles.gate import Run, Verdict
from locustfiles.memory import Memory
from locustfiles.processes import Usage
from locustfiles.profiled import Profiled
from locustfiles.scenarios import Scenario


@dataclass(frozen=True)
class Result:
    """One run of a scenario."""

    scenario: Scenario
    run: Run
    verdict: Verdict
    seen: Profiled = field(default_factory=Profiled)
    held: Memory = field(default_factory=Memory)
    usage: Sequence[Usage] = ()
    """Of the service's processes; empty when they are on another host."""
    facts: Mapping[str, str | int] = field(default_factory=dict)
    """Machine, commit and the like."""

    @property
    def outcome(self) -> str:
        """The verdict in a few words."""
        broken = len(self.verdict.reasons)
        if self.verdict.void:
            return "NO VERDICT (the load generator was the bottleneck)"
        return "PASSED" if self.verdict.passed else f"FAILED ({broken} threshold{'s'[: broken > 1]} not held)"

    @property
    def costs(self) -> list[str]:
        """What generator and service cost, a line each."""
        lines = [
            f"generator: {one.name}: a tenth of the run over {one.cpu:.0%} of a core, "
            f"woke {one.late_ms:.1f} ms late (p95)"
            for one in self.run.generators
        ]
        for name, database in (("service", False), ("database", True)):
            cores = [used for _, used in processes.cpu(self.usage, database=database)]
            if cores:
                mean, most = statistics.fmean(cores), max(cores)
                lines.append(f"{name}: CPU {mean:.2f} cores on average, {most:.2f} at most")
        if not self.usage:
            lines.append("service: CPU and memory not known, its processes cannot be seen from here")
        return lines
