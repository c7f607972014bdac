"""One page of all runs, and one comment that is updated."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from locustfiles import publish

ROOT = Path(__file__).resolve().parents[2]


def reports(folder: Path, **summaries: str) -> Path:
    for name, text in summaries.items():
        (folder / name).mkdir()
        (folder / name / "summary.md").write_text(text)
    return folder


class GitHub(ThreadingHTTPServer):
    """As much of GitHub as knows the comments of one pull request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.comments: list[dict[str, Any]] = []
        self.refuses = False

    def said(self, body: str, author: str = "Bot") -> None:
        self.comments.append({"id": len(self.comments), "body": body, "user": {"type": author}})

    @property
    def environment(self) -> dict[str, str]:
        return {
            "GITHUB_API_URL": f"http://127.0.0.1:{self.server_address[1]}",
            "GITHUB_REPOSITORY": "acme/shop",
            "GITHUB_TOKEN": "a token",
            "PULL_REQUEST": "7",
        }


class Handler(BaseHTTPRequestHandler):
    server: GitHub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(403 if self.server.refuses else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def body(self) -> str:
        assert self.headers["Authorization"] == "Bearer a token"
        return str(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"])

    def do_GET(self) -> None:
        page = int(self.path.rpartition("page=")[2])
        assert self.path.startswith("/repos/acme/shop/issues/7/comments?")
        self.answer(self.server.comments[(page - 1) * 100 : page * 100])

    def do_POST(self) -> None:
        assert self.path == "/repos/acme/shop/issues/7/comments"
        self.server.said(self.body())
        self.answer({"html_url": "new"})

    def do_PATCH(self) -> None:
        number = int(self.path.removeprefix("/repos/acme/shop/issues/comments/"))
        self.server.comments[number]["body"] = self.body()
        self.answer({"html_url": "changed"})


@pytest.fixture
def github() -> Iterator[GitHub]:
    with GitHub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_page_shows_each_headline_with_its_figures_folded_below(tmp_path: Path) -> None:
    text = publish.page(
        reports(tmp_path, smoke="## smoke: passed\n\nfigures of smoke\n", compare="## slower\n\nby\n")
    )
    assert text.index("### slower") < text.index("### smoke: passed") < text.index("figures of smoke")
    assert text.count("<details>") == text.count("</details>") == 2


def test_a_page_of_no_runs_says_so(tmp_path: Path) -> None:
    assert "No run has left a report" in publish.page(tmp_path)


def test_a_page_stays_below_what_github_takes(tmp_path: Path) -> None:
    text = publish.page(reports(tmp_path, a="## a: failed\n" + "x" * 70_000, b="## b: passed\n\nshort\n"))
    assert len(text) < 65_536
    assert "### a: failed" in text
    assert "short" in text


def test_the_second_run_changes_the_comment_of_the_first(github: GitHub, tmp_path: Path) -> None:
    folder = reports(tmp_path, smoke="## smoke: passed\n")
    assert publish.comment(publish.page(folder), github.environment) == "new"
    (folder / "smoke/summary.md").write_text("## smoke: failed\n")
    assert publish.comment(publish.page(folder), github.environment) == "changed"
    (only,) = github.comments
    assert "### smoke: failed" in only["body"]


def test_our_comment_is_found_among_many_and_nobody_elses_is_touched(github: GitHub) -> None:
    github.said(f"{publish.MARK} says a person", author="User")
    github.said("says another bot")
    for number in range(150):
        github.said(f"comment {number}", author="User")
    github.said(publish.MARK)
    before = [each["body"] for each in github.comments[:-1]]
    publish.comment(f"{publish.MARK} new", github.environment)
    assert [each["body"] for each in github.comments] == [*before, f"{publish.MARK} new"]


@pytest.mark.parametrize(
    ("fault", "status", "line"),
    [
        ("no token", 2, "GITHUB_TOKEN: expected in the environment"),
        ("refused", 1, "the comment could not be posted: HTTP Error 403"),
    ],
)
def test_what_is_wrong_is_one_line_and_an_exit_status(
    github: GitHub,
    fault: str,
    status: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    github.refuses = True
    for name, value in github.environment.items():
        monkeypatch.setenv(name, value)
    if fault == "no token":
        monkeypatch.delenv("GITHUB_TOKEN")
    assert publish.main(["comment"]) == status
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(line)


def test_gathering_needs_the_standard_library_only(tmp_path: Path) -> None:
    folder = reports(tmp_path, smoke="## smoke: passed\n")
    summary = tmp_path / "step-summary"
    subprocess.run(
        [sys.executable, "-S", "-m", "locustfiles.publish", "gather", "--reports", str(folder)],
        cwd=ROOT,
        env={"GITHUB_STEP_SUMMARY": str(summary)},
        check=True,
    )
    assert summary.read_text() == (folder / "summary.md").read_text() == publish.page(folder)
