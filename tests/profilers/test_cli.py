"""`flask profile …` and `python -m profilers …`: what they print, and one line for each mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from flask import Flask

from profilers import Profilers, cli, switches
from profilers.profile import Finding, Profile, Statement
from profilers.store import Store, open_store
from tests.profilers import hostile

LAZY = Finding("n_plus_one", "lazy_relationship", "Post.author", 10, fix=".options(…)", message="N+1: Post")


@pytest.fixture
def store(tmp_path) -> Store:
    """One request with a finding, one block."""
    opened = open_store(tmp_path / "kept")
    request = Profile("GET /posts", 1_760_000_000.0, duration=0.1, status=200, host="h", worker=1, id="first")
    request.statements = [Statement("SELECT author", 0.001, 0.001, 1)] * 10
    request.findings = [LAZY]
    opened.add([request, Profile("import", 1_760_000_001.0, kind="block", duration=0.2, id="second")])
    return opened


def run(store: Store | str | None, *arguments: str, **options: object) -> Result:
    where = [] if store is None else ["--store", str(store.database if isinstance(store, Store) else store)]
    return CliRunner().invoke(cli.profile, [*where, *arguments], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["list"], ["first", "GET /posts", "200", "100 ms", "import"]),
        (["list", "--limit", "1"], ["second"]),
        (["list", "--endpoint", "GET /p*"], ["first"]),
        (["show", "first"], ["10 statements", "SELECT author", "N+1: Post"]),
        (["endpoints"], ["GET /posts", "import"]),
        (["findings"], ["Post.author", "10 statements in 1 request", "fix: .options(…)", "first"]),
        (["statements"], ["SELECT author", "10"]),
        (["report"], ["GET /posts", "Post.author"]),
        (["status"], ["nothing was switched at run time", "FLASK_PROFILE=standby"]),
    ],
)  # fmt: skip
def test_each_question_is_answered(store, arguments, words):
    result = run(store, *arguments)
    assert result.exit_code == 0
    for word in words:
        assert word in result.output


def test_export_prints_each_profile_as_a_line_of_json_oldest_first(store):
    lines = [json.loads(line) for line in run(store, "export").output.splitlines()]
    assert [line["id"] for line in lines] == ["first", "second"]
    first = Profile.from_json(lines[0])
    assert [each.shape for each in first.statements] == ["SELECT author"] * 10
    assert first.findings == [LAZY]
    assert [
        json.loads(line)["id"] for line in run(store, "export", "--endpoint", "im*").output.splitlines()
    ] == ["second"]


@pytest.mark.parametrize("command", ["list", "endpoints", "findings", "statements", "report"])
@pytest.mark.parametrize("filtered", [["--endpoint", "GET /nowhere"], ["--last", "1s"]])
def test_a_filter_that_matches_nothing_does_not_say_that_nothing_was_profiled(store, command, filtered):
    result = run(store, command, *filtered)
    assert result.exit_code == 0
    assert result.output.strip().splitlines()[0].startswith(("No", "Nothing that was profiled matches"))
    assert "first" not in result.output


@pytest.mark.parametrize("form", cli.FORMATS)
def test_a_report_is_printed_or_written_in_each_format(store, form, tmp_path):
    file = tmp_path / "report"
    printed = run(store, "report", "--format", form)
    written = run(store, "report", "--format", form, "-o", str(file))
    assert written.stderr == f"wrote {file}\n"
    assert written.stdout == ""
    if form not in ("json", "html"):  # those hold when they were made
        assert file.read_text() == printed.stdout
    if form in ("json", "sarif", "speedscope"):
        json.loads(file.read_text())


def test_clear_forgets_all_and_says_so(store):
    assert run(store, "clear", input="n\n").exit_code == 1
    assert len(store.profiles()) == 2
    assert "forgot all profiles of" in run(store, "clear", "--yes").stderr
    assert list(store.profiles()) == []
    assert "Nothing was profiled yet" in run(store, "list").output


def test_switches_are_turned_and_shown(store):
    shown = run(store, "on", "nplusone", "--endpoint", "GET /p*", "--sample", "5%", "--for", "10m").output
    assert "on: nplusone for GET /p*, 5 % of the requests, 600 s to go" in shown
    assert switches.status(store).switches.on[0].sample == 0.05
    assert "off: queries, 60 s to go" in run(store, "off", "queries", "--for", "1m").output
    assert "off: all of the configuration, until turned on" in run(store, "off").output
    assert "nothing was switched" in run(store, "on").output


def test_compare_with_itself_and_with_a_worse_one(store, tmp_path):
    kept = str(store.database)
    assert run(None, "compare", kept, kept).output.splitlines()[-1] == "nothing changed"
    better = open_store(tmp_path / "better")
    better.add([Profile("GET /posts", 1_760_000_000.0, duration=0.1, status=200, host="h", worker=1)])
    gates = ["--fail-on", "new-findings", "--fail-on", "more-statements"]
    failed = run(None, "compare", str(better.database), kept, *gates)
    assert failed.exit_code == 1
    assert "new finding: N+1: Post" in failed.stdout
    assert failed.stderr == "Error: new-findings and more-statements: see above\n"
    assert run(None, "compare", kept, str(better.database), *gates).exit_code == 0


MISTAKES = [
    (["show", "nope"], "there is no profile nope"),
    (["show", "first", "--call-stack", "text"], "first has no call stack"),
    (["list", "--last", "5x"], "time '5x': expected such as 30s, 10m or 2h"),
    (["on", "nplusone", "--for", "ever"], "time 'ever': expected such as"),
    (["on", "nplusone", "--sample", "500%"], "expected more than 0 and at most 1"),
    (["on", "nonsense"], "unknown profiler nonsense: known are "),
    (["off", "nonsense"], "unknown profiler nonsense: known are "),
    (["report", "-o", "/dev/null/report"], "/dev/null/report"),
    (["compare", "/dev/null/a", "/dev/null/b"], "there is no profile store at /dev/null/a"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_a_mistake_is_one_line_on_stderr(store, arguments, message):
    result = run(store, *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize(
    "arguments",
    [["report", "--format", "pdf"], ["list", "--limit", "0"], ["lisst"], ["list", "--no"], ["show"]],
)
def test_wrong_usage_says_what_was_expected(store, arguments):
    result = run(store, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: " in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


QUESTIONS = ["list", "endpoints", "findings", "statements", "report", "status", "clear --yes"]


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_creates_no_store_where_there_is_none(question, tmp_path):
    result = run(str(tmp_path / "typo"), *question.split())
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: there is no profile store at {tmp_path}/typo/profiles.sqlite")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "typo").exists()


def test_a_store_that_cannot_be_read_is_one_line(store, tmp_path):
    junk, folder, cut = tmp_path / "junk.sqlite", tmp_path / "folder", tmp_path / "cut.sqlite"
    junk.write_bytes(b"no database at all" * 100)
    (folder / "profiles.sqlite").mkdir(parents=True)
    whole = open_store(cut)
    whole.add([Profile(f"GET /{n}", 1_760_000_000.0, duration=1, id=str(n)) for n in range(500)])
    connection = whole.database.connect()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    cut.write_bytes(cut.read_bytes()[:8192] + b"\xff" * 50_000)
    for where in (junk, folder, cut, "mysql://h/d", "postgresql://127.0.0.1:1/d"):
        result = run(str(where), "report")
        assert result.exit_code == 1, where
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1


def test_nothing_that_an_app_profiled_commands_the_terminal(tmp_path):
    profile = hostile.fill(open_store(tmp_path / "hostile"))
    for arguments in (
        ["list"], ["endpoints"], ["findings"], ["statements"], ["report"], ["show", profile.id],
        ["report", "--format", "md"], ["report", "--format", "html"], ["report", "--format", "json"],
    ):  # fmt: skip
        result = run(str(tmp_path / "hostile"), *arguments)
        assert result.exit_code == 0
        assert not {"\x1b", "\x9b", "\x07", "\r", "\u202e"} & set(result.output)


def test_flask_profile_asks_the_store_of_the_app(store, monkeypatch):
    monkeypatch.delenv("FLASK_PROFILE_STORE")
    app = Flask("shop")
    app.config["PROFILE_STORE"] = str(store.database)
    Profilers(app)
    assert "GET /posts" in app.test_cli_runner().invoke(cli.profile, ["list"]).output


def test_an_unknown_profiler_in_the_environment_is_one_line(tmp_path):
    Path(tmp_path, "shop.py").write_text("from flask import Flask\nfrom profilers import Profilers\n"
                                         "app = Flask(__name__)\nProfilers(app)\n")  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "shop", "profile", "list"],
        cwd=tmp_path, env={"PATH": "", "FLASK_PROFILE": "nope"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: PROFILE='nope': there is no such profiler")
    assert done.stderr.count("\n") == 1


def test_python_m_profilers_is_the_same_without_an_app(store, tmp_path):
    command = [sys.executable, "-m", "profilers", "--store", str(store.database), "show", "first"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "N+1: Post" in done.stdout


def test_the_call_stack_of_a_profile_is_drawn(tmp_path):
    from profilers import record

    with record("busy", profile="pyinstrument") as profile:
        for number in range(200_000):
            str(number)
    profile.id = "busy"
    opened = open_store(tmp_path / "stacks")
    opened.add([profile])
    assert "of_a_profile_is_drawn" in run(opened, "show", "busy", "--call-stack", "text").output
    speedscope = json.loads(run(opened, "show", "busy", "--call-stack", "speedscope").output)
    assert speedscope["shared"]["frames"]
