"""The ratios that benchmarks print compare neighbouring calls."""

from benchmarks.turns import Spread, Times, take_turns


def test_every_side_is_called_once_a_round_after_the_warm_up() -> None:
    calls: list[str] = []
    times = take_turns({side: lambda side=side: calls.append(side) for side in "abc"}, rounds=5)
    assert {side: len(seconds) for side, seconds in times.seconds.items()} == {"a": 5, "b": 5, "c": 5}
    rounds = [calls[start : start + 3] for start in range(9, len(calls), 3)]
    assert [sorted(each) for each in rounds] == [["a", "b", "c"]] * 5


def test_a_slow_moment_that_hits_both_sides_does_not_change_the_ratio() -> None:
    times = Times({"short": [1.0, 1.0, 10.0], "long": [2.0, 2.0, 20.0]})
    assert times.ratio("long", to="short") == Spread(2, 2, 2)
    assert times.milliseconds("long") == 2000


def test_the_spread_is_median_and_quartiles() -> None:
    assert Spread.of([1, 2, 3, 4, 5]) == Spread(2, 3, 4)
    assert Spread.of([7]) == Spread(7, 7, 7)
