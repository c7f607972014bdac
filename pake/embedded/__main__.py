"""`python -m pake.embedded`: tell about the server of a folder, or run it for as long as a command runs."""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

from pake.embedded import DEFAULT_FOLDER, EmbeddedPostgresError, start, status, stop


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: that of the command, or what LSB says of `status`."""
    parser = argparse.ArgumentParser(prog="python -m pake.embedded", description="PostgreSQL from a wheel.")
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="its data (default: %(default)s)")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("status", help="tell whether a server runs")
    run = actions.add_parser("run", help="run a server until Ctrl-C, or while a command runs")
    run.add_argument("command", nargs=argparse.REMAINDER, help="gets the server's DATABASE_URL")
    chosen = parser.parse_args(arguments)

    if chosen.action == "status":
        now = status(chosen.folder)
        print(
            f"running, process {now.server_pid}, of process {now.owner_pid}" if now.running else "not running"
        )
        return 0 if now.running else 3
    command = chosen.command[1:] if chosen.command[:1] == ["--"] else chosen.command
    try:
        url = start(chosen.folder)
        if not command:
            print(url, flush=True)
            signal.pause()
        environment = os.environ | {"DATABASE_URL": url}
        return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603 - the user's own
    except (EmbeddedPostgresError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        return 130
    finally:
        stop(chosen.folder)


if __name__ == "__main__":
    sys.exit(main())
