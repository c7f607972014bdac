"""`python -m pake.embedded status|run [FOLDER]`."""

import argparse
import signal
import sys

from pake.embedded import DEFAULT_FOLDER, EmbeddedPostgresError, start, status, stop


def main(arguments: list[str] | None = None) -> int:
    """`python -m pake.embedded`."""
    parser = argparse.ArgumentParser(prog="python -m pake.embedded", description="PostgreSQL from a wheel")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("status", "tell whether a server runs"), ("run", "run a server until Ctrl-C")):
        command = commands.add_parser(name, help=text)
        command.add_argument("folder", nargs="?", default=DEFAULT_FOLDER, help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    if chosen.command == "status":
        now = status(chosen.folder)
        print(
            f"running, process {now.server_pid}, started by {now.owner_pid}" if now.running else "not running"
        )
        return 0 if now.running else 3  # as LSB says of `status`
    try:
        print(start(chosen.folder), flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    except EmbeddedPostgresError as error:
        sys.exit(str(error))
    stop(chosen.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
