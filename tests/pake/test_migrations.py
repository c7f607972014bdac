"""The migrations make what the models say, and can be undone."""

import flask_migrate

from pake import create_app
from pake.config import load_settings


def test_migrations_agree_with_the_models_and_can_be_undone(empty_database_url: str) -> None:
    app = create_app(load_settings(database_url=empty_database_url))
    with app.app_context():
        flask_migrate.upgrade()
        flask_migrate.check()
        flask_migrate.downgrade(revision="base")
        flask_migrate.upgrade()
