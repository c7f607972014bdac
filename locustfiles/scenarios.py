"""The scenarios as data: how many users, how fast they come, how long they stay, and what must hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Thresholds:
    """Limits of one run. Times in milliseconds."""

    average_ms: float
    p95_ms: float
    errors: float
    """Highest share of failed requests, 0 to 1; 0 means none at all."""
    requests_per_second: float
    """Lowest rate with all users there."""


@dataclass(frozen=True)
class Scenario:
    """A load and its thresholds."""

    name: str
    users: int
    spawn_rate: float
    """Users that come in a second."""
    run_time: int
    """Seconds, the coming of users included."""
    thresholds: Thresholds
    personas: tuple[str, ...] = ("WebAppUser", "ApiUser", "ResearcherUser", "AdminUser")
    """Who comes, in the proportion of their weights."""

    settings: Mapping[str, str] = field(default_factory=dict)
    """What the service is started with, as environment variables."""

    memory: bool = False
    """Whether the workers' memory is looked at, and a leak fails the run."""

    arrivals: float = 0.0
    """Journeys that begin in a second, whatever the service does (the open model).

    0: each user thinks between its journeys (the closed model).
    """

    @property
    def ramp_seconds(self) -> float:
        """How long the users take to come."""
        return min(self.users / self.spawn_rate, self.run_time)


MANY = {"FLASK_PROFILE_SAMPLE": "0.05"}
"""Where hundreds of requests come in a second, a twentieth of them tells as much of the statements."""

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("smoke", 10, 2, 60, Thresholds(100, 200, 0, 10)),
        Scenario("normal", 100, 10, 600, Thresholds(500, 800, 0.01, 100)),
        Scenario("peak", 500, 50, 300, Thresholds(1000, 1000, 0.01, 500), settings=MANY),
        Scenario("stress", 1000, 100, 180, Thresholds(2000, 5000, 0.05, 1000), settings=MANY),
        Scenario("endurance", 50, 5, 1800, Thresholds(500, 800, 0.01, 50), memory=True),
        Scenario(
            "sessions",
            100,
            5,
            300,
            Thresholds(500, 800, 0, 80),
            personas=("SessionUser",),
            settings={"ACCESS_TOKEN_MINUTES": "1"},  # so that tokens run out before the run does
        ),
        # What a phone waits for, most of it for its network.
        Scenario("mobile", 100, 5, 300, Thresholds(1500, 3000, 0.01, 10), personas=("MobileUser",)),
    )
}

SIGN_IN = "POST /auth/token"
SIGN_IN_P95_MS = 5000
"""A sign-in computes a password hash on purpose, and all users come at once: a limit of its own."""

FEW = 20
"""A route with fewer requests is judged by its errors only: its p95 would be one request."""
