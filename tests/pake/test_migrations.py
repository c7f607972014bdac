"""The migrations make what the models say, and can be undone."""

import subprocess
import sys
from pathlib import Path

import flask_migrate

from pake import create_app
from pake.config import load_settings
from tests.servers import ROOT, environment


def test_migrations_agree_with_the_models_and_can_be_undone(empty_database_url: str) -> None:
    app = create_app(load_settings(database_url=empty_database_url))
    with app.app_context():
        flask_migrate.upgrade()
        flask_migrate.check()
        flask_migrate.downgrade(revision="base")
        flask_migrate.upgrade()


def test_hosts_that_upgrade_at_once_all_find_it_done(empty_database_url: str, tmp_path: Path) -> None:
    upgrades = [
        subprocess.Popen(
            [sys.executable, "-m", "flask", "--app", "pake", "db", "upgrade"],
            cwd=ROOT,
            env=environment(DATABASE_URL=empty_database_url, INSTANCE_PATH=str(tmp_path / str(number))),
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    errors = [upgrade.communicate(timeout=60)[1] for upgrade in upgrades]
    assert [upgrade.returncode for upgrade in upgrades] == [0, 0, 0], errors
