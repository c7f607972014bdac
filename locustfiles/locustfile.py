"""What Locust loads: all personas, and what makes its measurements good enough to hang a verdict on."""

from __future__ import annotations

import functools

import locust.argument_parser
import locust.runners
import locust.stats

from locustfiles import results
from locustfiles.personas import AdminUser, ApiUser, MobileUser, ResearcherUser, SessionUser, WebAppUser

__all__ = ["AdminUser", "ApiUser", "MobileUser", "ResearcherUser", "SessionUser", "WebAppUser"]


def bucket(milliseconds: float) -> float:
    """Tenths of a millisecond below 100, else three digits: a percentile is off by half a percent at most.

    Locust's own buckets are off by 5 %, which is more than a threshold should hang on.
    """
    return round(milliseconds, 1) if milliseconds < 100 else float(f"{milliseconds:.3g}")


locust.stats.bucket_response_time = bucket  # type: ignore[assignment]
# A worker of Locust 2.47 asks for it once for each option whenever users come, every second of the ramp:
# 0.1 s of CPU in which its clock runs on and no answer is read.
locust.argument_parser.default_args_dict = functools.cache(locust.argument_parser.default_args_dict)
# A worker that is silent for longer is given up, and its counts with it. Locust's three seconds are soon over
# where workers wait for CPU, which is for the verdict to tell.
locust.runners.HEARTBEAT_LIVENESS = 20
results.install()
