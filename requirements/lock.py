"""Resolve the dependencies of setup.cfg into requirements/*.txt, with hashes.

Run by `make lock`. Every file is resolved for all platforms and Python 3.11+ at once, and the longer
ones are held to what the shorter ones chose, so that what is tested is what runs. bench.txt is held to
run.txt too: the tools that ours are measured against, in an environment of their own. image.txt is what the
container of the service holds.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
EXTRAS = {
    "run": ["run"],
    "bench": ["bench"],
    "test": ["run", "test"],
    "image": ["image"],
    "dev": ["run", "test", "dev"],
}
HELD_TO = {"bench": "run", "test": "run", "image": "test", "dev": "test"}


def main() -> None:
    for name, extras in EXTRAS.items():
        target = HERE / f"{name}.txt"
        command = [sys.executable, "-m", "uv", "pip", "compile", "setup.cfg", "--quiet"]
        command += ["--universal", "--python-version", "3.11", "--generate-hashes", "--upgrade"]
        command += ["--no-emit-index-url", "--custom-compile-command", "make lock"]
        # Building the package itself, for its entry points, needs these two.
        command += ["-", "--output-file", str(target)]
        command += [part for extra in extras for part in ("--extra", extra)]
        if name in HELD_TO:
            command += ["--constraints", str(HERE / f"{HELD_TO[name]}.txt")]
        subprocess.run(command, check=True, cwd=HERE.parent, input=b"setuptools\nwheel\n")  # noqa: S603
        print(f"wrote {target.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
