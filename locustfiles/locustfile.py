"""What Locust loads: all personas, and finer response times than it keeps by itself."""

from __future__ import annotations

import locust.stats

from locustfiles import results
from locustfiles.personas import AdminUser, ApiUser, ResearcherUser, WebAppUser

__all__ = ["AdminUser", "ApiUser", "ResearcherUser", "WebAppUser"]


def bucket(milliseconds: float) -> float:
    """Tenths of a millisecond below 100, else three digits: a percentile is off by half a percent at most.

    Locust's own buckets are off by 5 %, which is more than a threshold should hang on.
    """
    return round(milliseconds, 1) if milliseconds < 100 else float(f"{milliseconds:.3g}")


locust.stats.bucket_response_time = bucket  # type: ignore[assignment]
results.install()
