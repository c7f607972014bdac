"""docs/find-an-n-plus-one.md does what it says, followed word for word but for the server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path("docs/find-an-n-plus-one.md")
CODE = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def follow(folder: Path, name: str, code: str, url: str) -> tuple[str, str]:
    """Run the page's commands: the findings, then how many statements are left once the fix is typed in."""
    environment = {**os.environ, "FLASK_APP": name}
    file = folder / f"{name}.py"
    file.write_text(code)

    def flask(*arguments: str) -> str:
        command = [sys.executable, "-m", "flask", *arguments]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=True
        ).stdout

    def ask() -> None:
        program = f"import {name}; assert {name}.app.test_client().get({url!r}).status_code == 200"
        on = {**environment, "FLASK_PROFILE": "queries,nplusone"}
        subprocess.run([sys.executable, "-c", program], cwd=folder, env=on, check=True)

    flask("init")
    ask()
    findings = flask("profile", "findings")
    fix = re.search(r"fix: (\.options\(.*\))", findings)
    assert fix
    fixed = re.sub(r"select\((Order|Author)\)", rf"select(\1){fix[1]}", code)
    file.write_text("from sqlalchemy.orm import joinedload, selectinload\n" + fixed)
    flask("profile", "clear", "--yes")
    ask()
    return findings, flask("profile", "list")


@pytest.mark.parametrize(
    ("name", "url", "lines", "left"),
    [
        (
            "shop",
            "/orders",
            [
                "lazy relationship: Order.customer",
                "10 statements in 1 request of GET /orders",
                "queried at shop.py:31 in orders",
                "caused at shop.py:32 in orders",
                "fix: .options(joinedload(Order.customer))",
            ],
            1,
        ),
        (
            "blog",
            "/authors",
            ["lazy relationship: Author.posts", "fix: .options(selectinload(Author.posts))"],
            2,
        ),
    ],
)
def test_the_page_word_for_word(tmp_path, name, url, lines, left):
    code = next(block for block in CODE if f'@app.get("{url}")' in block)
    findings, listed = follow(tmp_path, name, code, url)
    for line in lines:
        assert line in findings
    assert re.search(rf"GET {url} +200 .* ms +{left} ", listed), listed
