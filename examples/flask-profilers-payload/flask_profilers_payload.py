"""`FLASK_PROFILE=payload`: requests that fetch far more rows than a page can show."""

from __future__ import annotations

from dataclasses import dataclass

from profilers import Finding, Profile, Profiler, option


@dataclass(frozen=True)
class PayloadOptions:
    max_rows: int = option(1000, "A request that fetches more rows than this is a finding.")


class PayloadSize(Profiler[PayloadOptions]):
    name = "payload"
    options_class = PayloadOptions
    needs = frozenset({"statements"})

    def examine(self, profile: Profile) -> None:
        rows = sum(max(statement.rows, 0) for statement in profile.statements)
        profile.sections[self.name] = {"rows": rows}
        if rows <= self.options.max_rows:
            return
        largest = max(profile.statements, key=lambda statement: statement.rows)
        profile.findings.append(
            Finding(
                kind="large_payload",
                cause="unbounded_result",
                subject=largest.shape,
                count=len(profile.statements),
                location=largest.location,
                fix="Add .limit(…) to the statement, or page through it by key.",
                message=(
                    f"{profile.name} fetched {rows} rows where {self.options.max_rows} are allowed; "
                    f"{largest.rows} of them at {largest.location}. Page through them."
                ),
            )
        )
