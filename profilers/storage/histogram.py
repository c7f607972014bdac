"""Percentiles without keeping every value: counts by logarithmic bucket, which add up across workers.

A bucket's value is off by at most 2.5 % (half of `GROWTH - 1`) from any duration in it; numbers of statements
up to 100 are exact. The idea is DDSketch's (Masson, Rim, Lee, VLDB 2019).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

GROWTH = 1.05
_LOG = math.log(GROWTH)
_MIDDLE = 2 / (GROWTH + 1)
_EXACT = 100


def duration_bucket(seconds: float) -> int:
    """Bucket of a duration; all below one microsecond share bucket 0."""
    return math.ceil(math.log(seconds * 1e6) / _LOG) if seconds > 1e-6 else 0


def duration_value(bucket: int) -> float:
    """Seconds that a bucket stands for."""
    return _MIDDLE * GROWTH**bucket * 1e-6 if bucket else 0.0


def count_bucket(count: int) -> int:
    """Bucket of a number of statements: itself up to 100."""
    return count if count <= _EXACT else _EXACT + math.ceil(math.log(count / _EXACT) / _LOG)


def count_value(bucket: int) -> float:
    """Number that a bucket stands for."""
    return float(bucket) if bucket <= _EXACT else round(_EXACT * _MIDDLE * GROWTH ** (bucket - _EXACT))


def duration_bounds(bucket: int) -> tuple[float, float]:
    """Seconds between which a bucket's durations lie."""
    return (GROWTH ** (bucket - 1) * 1e-6, GROWTH**bucket * 1e-6) if bucket else (0.0, 1e-6)


def percentile_bucket(counts: Mapping[int, int], share: float) -> int:
    """Bucket of the nearest-rank percentile; 0 when there is nothing.

    `counts` is how many values fell in each bucket, `share` between 0 and 1.
    """
    return rank_bucket(counts, math.ceil(share * sum(counts.values())))


def rank_bucket(counts: Mapping[int, int], rank: int) -> int:
    """Bucket of the value of that rank, the lowest being 1; 0 when there is nothing."""
    for bucket in sorted(counts):
        rank -= counts[bucket]
        if rank <= 0:
            return bucket
    return 0


def median_bounds(durations: Mapping[int, int]) -> tuple[float, float]:
    """Seconds between which the median lies with 95 % confidence, whatever the distribution.

    They are order statistics (Conover, Practical Nonparametric Statistics, 3.2), at the outer edges of their
    buckets. Of fewer than six values there is no such interval: the lowest and the highest are given.
    """
    count = sum(durations.values())
    low = max(1, math.floor((count - 1.96 * math.sqrt(count)) / 2))
    first, last = rank_bucket(durations, low), rank_bucket(durations, count + 1 - low)
    return duration_bounds(first)[0], duration_bounds(last)[1]
