"""What a stranger installs: the profilers alone, without the service."""

from importlib.metadata import files, requires


def test_profilers_alone_pull_in_flask_and_sqlalchemy_only() -> None:
    unconditional = [line for line in requires("flask-profilers") or [] if "extra ==" not in line]
    assert sorted(line.split(">")[0].strip() for line in unconditional) == ["flask", "sqlalchemy"]


def test_distribution_is_installed_from_this_checkout() -> None:
    assert files("flask-profilers")
