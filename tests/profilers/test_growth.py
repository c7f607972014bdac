"""Growth with the data is told from counts at several sizes."""

import pytest

from profilers.profile import Location, Profile, Statement
from profilers.testing.growth import growing

TOUCHED = Location("views.py", 20, "show")


def ran(*counted: tuple[str, int]) -> Profile:
    statements = [Statement(shape, 0.0, location=TOUCHED) for shape, count in counted for _ in range(count)]
    return Profile("call", 0.0, statements=statements)


def test_a_statement_for_each_row_is_named_with_its_slope_and_line() -> None:
    (found,) = growing({n: ran(("SELECT posts", 1), ("SELECT author", n)) for n in (2, 5, 10)})
    assert (found.shape, found.slope, found.constant) == ("SELECT author", 1.0, pytest.approx(0))
    assert str(TOUCHED) in str(found)
    assert "n=2: 2, n=5: 5, n=10: 10" in str(found)


def test_two_statements_for_each_row_beside_a_constant_one_have_slope_two() -> None:
    (found,) = growing({n: ran(("SELECT tag", 1 + 2 * n)) for n in (2, 5, 10)})
    assert (found.slope, found.constant) == (pytest.approx(2), pytest.approx(1))


@pytest.mark.parametrize(
    "counts",
    [(3, 3, 3), (4, 1, 1), (0, 1, 0), (1, 0, 1)],
    ids=["constant", "cache warms up", "now and then", "once more, once less"],
)
def test_what_does_not_grow_is_silent(counts: tuple[int, ...]) -> None:
    assert growing({n: ran(("SELECT a", count)) for n, count in zip((2, 5, 10), counts, strict=True)}) == []


def test_a_page_that_fills_up_grows_until_the_sizes_pass_it() -> None:
    assert growing({n: ran(("SELECT a", min(n, 4))) for n in (2, 5, 10)})
    assert not growing({n: ran(("SELECT a", min(n, 4))) for n in (5, 10, 20)})


def test_one_size_is_refused_because_it_shows_nothing() -> None:
    with pytest.raises(ValueError, match="two sizes"):
        growing({3: ran(("SELECT a", 3))})
