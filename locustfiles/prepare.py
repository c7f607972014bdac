"""`python -m locustfiles.prepare accounts.json`: make a service ready for a load that other hosts drive.

Adds services and accounts to the database of DATABASE_URL, and writes the accounts to a file for the personas
(`python -m locustfiles … --accounts`). May be repeated: it then replaces the accounts by new ones.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from locustfiles import service


def main(arguments: list[str] | None = None) -> int:
    """Prepare; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m locustfiles.prepare", description=__doc__.split("\n")[0])
    parser.add_argument("accounts", type=Path, help="the file to write")
    parser.add_argument("--users", type=int, default=20, help="accounts of each role (20)")
    parser.add_argument("--services", type=int, default=100, help="services in the database (100)")
    options = parser.parse_args(arguments)
    environment = {"INSTANCE_PATH": tempfile.gettempdir(), **os.environ, "PYTHONPATH": str(service.ROOT)}
    target = service.Service("", environment=environment)
    try:
        target.flask("demo-data", "--services", str(options.services))
        service.delete_accounts(target)
        service.make_accounts(target, options.accounts, options.users, options.users)
    except service.ServiceError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
