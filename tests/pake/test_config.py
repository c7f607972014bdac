"""Settings: what they accept, and that all mistakes are told at once, a line each."""

from pathlib import Path

import pytest

from pake.config import Settings, SettingsError, documentation, load_settings

ROOT = Path(__file__).resolve().parents[2]
KEY = "a key for tests that is long enough"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def mistakes(monkeypatch: pytest.MonkeyPatch, **environment: str) -> list[str]:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    return str(caught.value).splitlines()


def test_nothing_needs_to_be_set() -> None:
    settings = load_settings()
    assert settings.database_url is None
    assert settings.flask_profile == ()


def test_the_page_about_configuration_is_current() -> None:
    assert (ROOT / "docs/configuration.md").read_text() == documentation()


def test_dotenv_is_read_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("HISTORY_LIMIT=7\nLOG_LEVEL=debug\nFLASK_APP=pake\n")
    monkeypatch.setenv("LOG_LEVEL", "error")
    settings = load_settings()
    assert (settings.history_limit, settings.log_level) == (7, "ERROR")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_every_way_to_write_the_url_means_psycopg2(scheme: str) -> None:
    settings = load_settings(database_url=f"{scheme}://me:se%40cret@host/name")
    assert settings.database_url
    assert settings.database_url.get_secret_value() == "postgresql+psycopg2://me:se%40cret@host/name"


def test_an_empty_value_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "")
    assert load_settings().database_url is None


def test_lists_are_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_PROFILE", "queries, nplusone,")
    monkeypatch.setenv("ALLOWED_HOSTS", "api.example.org,.example.net")
    settings = load_settings()
    assert settings.flask_profile == ("queries", "nplusone")
    assert settings.allowed_hosts == ("api.example.org", ".example.net")


def test_every_mistake_has_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = mistakes(monkeypatch, SLOW_QUERY_THRESHOLD_MS="abc", LOG_FORMAT="xml", HISTORY_LIMIT="0")
    assert len(lines) == 3
    assert any("SLOW_QUERY_THRESHOLD_MS=abc: expected a valid number" in line for line in lines)
    assert any("LOG_FORMAT=xml: expected 'console' or 'json'" in line for line in lines)
    assert any("HISTORY_LIMIT=0: expected greater than or equal to 1" in line for line in lines)


def test_a_mistake_in_dotenv_is_shown_with_its_value(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("HISTORY_LIMIT=many\n")
    assert "HISTORY_LIMIT=many: expected a valid integer" in mistakes(monkeypatch)[0]


def test_an_unknown_profiler_is_answered_with_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = mistakes(monkeypatch, FLASK_PROFILE="queries,nonsense")
    assert "there is no profiler nonsense" in line
    assert "nplusone" in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://me:hush@host/name"),
        ("DATABASE_URL", "hush"),
        ("SECRET_KEY", "hush"),
        ("SECRET_KEY", "hush" * 8),
        ("PREVIOUS_SECRET_KEYS", f"{KEY},hush"),
        ("REDIS_URL", "http://hush@host"),
    ],
)
def test_a_wrong_secret_is_named_but_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    (line,) = mistakes(monkeypatch, **{name: value})
    assert line.startswith(f"{name}: expected ")
    assert "hush" not in line


def test_production_wants_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = mistakes(monkeypatch, PAKE_ENV="production")
    assert "SECRET_KEY must be set" in line
    monkeypatch.setenv("SECRET_KEY", KEY)
    assert load_settings().pake_env == "production"


def test_production_refuses_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", KEY)
    (line,) = mistakes(monkeypatch, PAKE_ENV="production", FLASK_DEBUG="1")
    assert "FLASK_DEBUG must not be set" in line
    monkeypatch.setenv("FLASK_DEBUG", "0")
    assert load_settings().pake_env == "production"


def test_secrets_do_not_show_when_settings_are_printed() -> None:
    assert KEY not in repr(load_settings(secret_key=KEY, database_url="postgresql://me:hush@host/name"))
    assert "hush" not in repr(load_settings(database_url="postgresql://me:hush@host/name"))


@pytest.mark.parametrize("limit", ["none", "5 per minute", "100/hour;5/second"])
def test_rate_limits_in_their_notation(limit: str) -> None:
    assert load_settings(auth_rate_limit=limit).auth_rate_limit == limit


def test_a_rate_limit_in_no_notation(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = mistakes(monkeypatch, AUTH_RATE_LIMIT="often")
    assert line.startswith("AUTH_RATE_LIMIT=often: expected something like")
