"""Resolve the dependencies of setup.cfg into requirements/{run,test,dev}.txt, with hashes.

Run by `make lock`. Every file is resolved for all platforms and Python 3.11+ at once, and the longer
ones are held to what the shorter ones chose, so that what is tested is what runs.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
EXTRAS = {"run": ["run"], "test": ["run", "test"], "dev": ["run", "test", "dev"]}


def main() -> None:
    shorter: Path | None = None
    for name, extras in EXTRAS.items():
        target = HERE / f"{name}.txt"
        command = [sys.executable, "-m", "uv", "pip", "compile", "setup.cfg", "--quiet"]
        command += ["--universal", "--python-version", "3.11", "--generate-hashes", "--upgrade"]
        command += ["--no-emit-index-url", "--custom-compile-command", "make lock"]
        # Building the package itself, for its entry points, needs these two.
        command += ["-", "--output-file", str(target)]
        command += [part for extra in extras for part in ("--extra", extra)]
        if shorter is not None:
            command += ["--constraints", str(shorter)]
        subprocess.run(command, check=True, cwd=HERE.parent, input=b"setuptools\nwheel\n")  # noqa: S603
        shorter = target
        print(f"wrote {target.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
