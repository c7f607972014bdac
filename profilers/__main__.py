"""`python -m profilers …`: the commands of `flask profile`, without an app."""

from profilers.cli import profile

profile(prog_name="python -m profilers")
