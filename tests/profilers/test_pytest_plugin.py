"""The pytest plugin on the example blog: it fails with what is needed to mend it, and passes once mended."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.profilers.test_reports import check_sarif

BLOG = Path(__file__).resolve().parents[2] / "examples/blog"
LAZY = "select(Post).order_by(Post.title)"
MENDED = "select(Post).options(joinedload(Post.author)).order_by(Post.title)"


@pytest.fixture
def blog(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A copy of the example, as somebody would have it."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # ours alone: a dozen others take seconds
    for name in ("blog.py", "test_blog.py"):
        shutil.copy(BLOG / name, pytester.path / name)
    pytester.makeini("[pytest]\npythonpath = .\n")
    return pytester


def mend(blog: pytest.Pytester, fix: str) -> None:
    path = blog.path / "blog.py"
    code = path.read_text().replace("select(Post)", f"select(Post){fix}")
    path.write_text(code.replace("Session, mapped_column", "Session, joinedload, mapped_column"))


def run(blog: pytest.Pytester, *options: str) -> pytest.RunResult:
    xdist = ("-p", "xdist") if "-n" in options else ()
    return blog.runpytest_subprocess("-p", "profilers.pytest_plugin", *xdist, *options)


def printed_fix(result: pytest.RunResult) -> str:
    """The `.options(…)` that the failure names, as somebody would copy it."""
    text = result.stdout.str()
    start = text.index(".options(")
    end = next(at for at in range(start, len(text)) if text[at] == ")" and balanced(text[start : at + 1]))
    return text[start : end + 1]


def balanced(code: str) -> bool:
    return code.count("(") == code.count(")")


def test_without_an_option_nothing_is_judged(blog: pytest.Pytester) -> None:
    run(blog).assert_outcomes(passed=1)


def test_the_failure_names_both_lines_and_a_fix_that_makes_it_pass(blog: pytest.Pytester) -> None:
    failed = run(blog, "--nplusone=error")
    failed.assert_outcomes(failed=1)
    message = failed.stdout.str()
    code = (blog.path / "blog.py").read_text().splitlines()
    queried = next(number for number, line in enumerate(code, 1) if LAZY in line)
    assert "Post.author" in message
    assert f"queried at blog.py:{queried} in posts" in message
    assert "at <template>:1 in template" in message
    mend(blog, printed_fix(failed))
    run(blog, "--nplusone=error").assert_outcomes(passed=1)


def test_the_ini_switch_does_the_same(blog: pytest.Pytester) -> None:
    blog.makeini("[pytest]\npythonpath = .\nnplusone = error\n")
    run(blog).assert_outcomes(failed=1)


def test_warn_lets_the_test_pass_and_says_it(blog: pytest.Pytester) -> None:
    warned = run(blog, "--nplusone=warn")
    warned.assert_outcomes(passed=1, warnings=1)
    warned.stdout.fnmatch_lines(["*NPlusOneWarning*Post.author*"])


def test_a_known_n_plus_one_passes_and_a_new_one_fails(blog: pytest.Pytester) -> None:
    known = ("--nplusone=error", "--nplusone-baseline=known.json")
    run(blog, *known, "--nplusone-baseline-update").assert_outcomes(passed=1)
    assert "Post.author" in (blog.path / "known.json").read_text()
    run(blog, *known).assert_outcomes(passed=1)

    app = (blog.path / "blog.py").read_text()
    another = app.replace('"/posts"', '"/latest"').replace("def posts()", "def latest()")
    view = another[another.index('    @app.get("/latest")') : another.index("    return app")]
    (blog.path / "blog.py").write_text(app.replace("    return app", view + "    return app"))
    test = (blog.path / "test_blog.py").read_text()
    extra = test[test.index("def test") :].replace("test_posts", "test_latest").replace("/posts", "/latest")
    (blog.path / "test_blog.py").write_text(test + "\n\n" + extra)
    run(blog, *known).assert_outcomes(passed=1, failed=1)


def test_a_mended_n_plus_one_is_reported_as_gone_from_the_baseline(blog: pytest.Pytester) -> None:
    known = ("--nplusone=error", "--nplusone-baseline=known.json")
    run(blog, *known, "--nplusone-baseline-update")
    mend(blog, ".options(joinedload(Post.author))")
    mended = run(blog, *known)
    mended.assert_outcomes(passed=1)
    mended.stdout.fnmatch_lines(["1 known N+1s were not seen*"])


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_the_lock_round_trips_and_a_new_query_fails_it(
    blog: pytest.Pytester, workers: tuple[str, ...]
) -> None:
    assert run(blog, *workers, "--queries-lock=update").ret == 0
    assert "GET /posts" in json.loads((blog.path / "queries.lock").read_text())["routes"]
    assert run(blog, *workers, "--queries-lock=check").ret == 0

    path = blog.path / "blog.py"
    path.write_text(
        path.read_text().replace("found =", "session.scalar(select(Author.id))\n            found =")
    )
    changed = run(blog, *workers, "--queries-lock=check")
    assert changed.ret == 1
    changed.stdout.fnmatch_lines(["GET /posts: +1 query at blog.py:*: SELECT author.id*"])


def test_markers_and_fixtures(blog: pytest.Pytester) -> None:
    blog.makepyfile(
        test_marks="""
        import pytest
        from blog import create_app

        @pytest.fixture
        def client():
            return create_app().test_client()

        @pytest.mark.max_queries(11)
        def test_enough(client):
            client.get("/posts")

        @pytest.mark.max_queries(10)
        def test_too_many(client):
            client.get("/posts")

        @pytest.mark.no_n_plus_one
        def test_lazy(client):
            client.get("/posts")

        @pytest.mark.no_n_plus_one
        def test_nothing(client):
            client.get("/nowhere")

        def test_block(client, max_queries):
            with max_queries(11) as profile:
                client.get("/posts")
            assert len(profile.statements) == 11
        """
    )
    result = run(blog, "test_marks.py")
    result.assert_outcomes(passed=3, failed=2)
    result.stdout.fnmatch_lines(["*11 statements where 10 are allowed:*"])


GROWING = """
    import pytest
    from sqlalchemy import create_engine, func, select
    from sqlalchemy.orm import Session, selectinload
    from blog import Author, Base, Post

    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)

    def populate(n):
        with Session(engine) as session:
            have = session.scalar(select(func.count()).select_from(Post))
            session.add_all(Post(title="t", author=Author(name="a")) for _ in range(n - have))
            session.commit()

    def names(*options):
        with Session(engine) as session:
            return [post.author.name for post in session.scalars(select(Post).options(*options))]

    def test_lazy(assert_constant_queries):
        assert_constant_queries(names, populate)

    def test_eager(assert_constant_queries):
        assert_constant_queries(lambda: names(selectinload(Post.author)), populate)
"""


def test_growth_is_named_and_constant_code_passes(blog: pytest.Pytester) -> None:
    blog.makepyfile(test_growing=GROWING)
    result = run(blog, "test_growing.py")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*the number of statements grows with the data:*", "*1 * n*n=10: 10*"])
    assert "Post.author" in result.stdout.str()


def test_several_requests_of_one_row_each_are_no_finding(blog: pytest.Pytester) -> None:
    blog.makepyfile(
        test_many="""
        from flask import Flask
        from sqlalchemy import create_engine, select
        from sqlalchemy.orm import Session
        from sqlalchemy.pool import StaticPool
        from blog import Author, Base, Post

        def test_ten_requests():
            options = {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
            engine = create_engine("sqlite://", **options)
            Base.metadata.create_all(engine)
            with Session(engine) as session:
                for number in range(10):
                    session.add(Post(title="t", author=Author(name="a")))
                    session.flush()
                session.commit()
            app = Flask(__name__)

            @app.get("/<int:number>")
            def show(number):
                with Session(engine) as session:
                    return session.get(Post, number).author.name

            for number in range(1, 11):
                assert app.test_client().get(f"/{number}").text == "a"
        """
    )
    run(blog, "--nplusone=error", "test_many.py").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--nplusone-baseline-update"], "*--nplusone-baseline-update needs --nplusone-baseline=FILE*"),
        (["--nplusone-baseline=bad.json"], "*bad.json is not a baseline of version 1*"),
    ],
)
def test_a_wrong_option_is_one_line(blog: pytest.Pytester, options: list[str], line: str) -> None:
    (blog.path / "bad.json").write_text("[]")
    result = run(blog, *options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([line])


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
@pytest.mark.parametrize("mode", ["off", "warn", "error"])
def test_the_suites_findings_are_written_as_sarif(
    blog: pytest.Pytester, workers: tuple[str, ...], mode: str
) -> None:
    ran = run(blog, *workers, f"--nplusone={mode}", "--nplusone-sarif=out/found.sarif")
    assert ran.ret == (1 if mode == "error" else 0)
    (result,) = check_sarif(json.loads((blog.path / "out/found.sarif").read_text()))
    code = (blog.path / "blog.py").read_text().splitlines()
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "blog.py"
    assert LAZY in code[place["region"]["startLine"] - 1]

    mend(blog, ".options(joinedload(Post.author))")
    assert run(blog, *workers, "--nplusone-sarif=out/found.sarif").ret == 0
    assert check_sarif(json.loads((blog.path / "out/found.sarif").read_text())) == []
