"""One page of all runs of a workflow, and one comment on its pull request that is updated.

`python -m locustfiles.publish gather` puts the summaries of every run below reports/ on one page, also on the
workflow's own (GITHUB_STEP_SUMMARY); `python -m locustfiles.publish comment` posts it to the pull request
PULL_REQUEST of GITHUB_REPOSITORY, in place of the comment that it has posted before.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

MARK = "<!-- the performance of this pull request -->"
"""How our own comment is found again."""
MOST_CHARACTERS = 60_000
"""GitHub takes 65,536 in a comment."""
PAGE = 100
NEEDED = ("GITHUB_TOKEN", "GITHUB_REPOSITORY", "PULL_REQUEST")


def page(reports: Path) -> str:
    """Each run's headline, with its summary folded below it."""
    runs = [path.read_text(encoding="utf-8") for path in sorted(reports.glob("*/summary.md"))]
    if not runs:
        return f"{MARK}\n## No run has left a report\n\nThe workflow's log says why.\n"
    lines = [MARK, "# Performance", ""]
    left = MOST_CHARACTERS
    for run in runs:
        headline, _, rest = run.partition("\n")
        if len(rest) > left:
            rest = "\nToo long for here: it is among the artifacts of the workflow.\n"
        left -= len(rest)
        lines += [f"#{headline}", "", "<details><summary>Figures</summary>", rest, "</details>", ""]
    return "\n".join(lines)


def comment(text: str, environment: dict[str, str]) -> str:
    """Post the page, or replace the one that was posted; its address.

    Raises:
        urllib.error.URLError: GitHub refuses, or is away.
    """
    api = environment.get("GITHUB_API_URL", "https://api.github.com")
    base = f"{api}/repos/{environment['GITHUB_REPOSITORY']}/issues"
    number = int(environment["PULL_REQUEST"])

    def call(method: str, url: str, data: Any = None) -> Any:
        request = urllib.request.Request(
            url,
            method=method,
            data=json.dumps(data).encode() if data is not None else None,
            headers={
                "Authorization": f"Bearer {environment['GITHUB_TOKEN']}",
                "Accept": "application/vnd.github+json",
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    ours = None
    at = 1
    while ours is None:
        comments = call("GET", f"{base}/{number}/comments?per_page={PAGE}&page={at}")
        ours = next((each for each in comments if _is_ours(each)), None)
        if len(comments) < PAGE:
            break
        at += 1
    if ours is None:
        posted = call("POST", f"{base}/{number}/comments", {"body": text})
    else:
        posted = call("PATCH", f"{base}/comments/{ours['id']}", {"body": text})
    return str(posted["html_url"])


def _is_ours(comment: Any) -> bool:
    """Anyone may write the mark; only a workflow's comment can be ours."""
    return bool(comment["user"]["type"] == "Bot" and comment["body"].startswith(MARK))


def main(arguments: list[str] | None = None) -> int:
    """Gather or comment; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m locustfiles.publish", description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("gather", "comment"))
    parser.add_argument("--reports", type=Path, default=Path("reports"), help="where the runs are (reports)")
    options = parser.parse_args(arguments)
    text = page(options.reports)
    if options.what == "gather":
        options.reports.mkdir(exist_ok=True)
        (options.reports / "summary.md").write_text(text, encoding="utf-8")
        if path := os.environ.get("GITHUB_STEP_SUMMARY"):
            with open(path, "a", encoding="utf-8") as summary:
                summary.write(text)
        print(options.reports / "summary.md")
        return 0
    if missing := [name for name in NEEDED if not os.environ.get(name)]:
        print(f"{', '.join(missing)}: expected in the environment, as in a workflow", file=sys.stderr)
        return 2
    try:
        print(comment(text, dict(os.environ)))
    except urllib.error.URLError as error:
        print(f"the comment could not be posted: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
