"""The shared fixtures: every test has a PostgreSQL database of its own."""

import pytest
import sqlalchemy as sa


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_has_its_own_database(empty_database_url: str, turn: int) -> None:
    engine = sa.create_engine(empty_database_url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE TABLE seen AS SELECT {turn} AS turn"
        )  # fails if it is there already
        assert connection.exec_driver_sql("SELECT count(*) FROM pg_stat_statements").scalar() is not None


def test_a_tests_database_is_migrated(database_url: str) -> None:
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    assert {"users", "alembic_version"} <= {*sa.inspect(engine).get_table_names()}
