"""A shape has no values in it, and statements that differ only in values share it."""

import pytest

from profilers.shapes import MAX_SHAPE, normalise


@pytest.mark.parametrize(
    ("sql", "shape"),
    [
        ("SELECT * FROM a WHERE x = 'secret'", "SELECT * FROM a WHERE x = ?"),
        ("SELECT 'it''s' , 12, -3.5e7, 0xFF", "SELECT ? , ?, -?, ?"),
        (r"SELECT E'it\'s secret', b", "SELECT ?, b"),
        ("SELECT $$secret$$, $tag$ it's $tag$, $1", "SELECT ?, ?, ?"),
        ("SELECT x'ff', N'name'", "SELECT ?, ?"),
        ("SELECT a -- secret\nFROM b /* secret */", "SELECT a FROM b"),
        ("SELECT 'never closed", "SELECT ?"),
        ("SELECT a /* never closed", "SELECT a"),
        ("SELECT t1.c2 FROM t1", "SELECT t1.c2 FROM t1"),
        ('SELECT "user".id FROM "user"', 'SELECT "user".id FROM "user"'),
        ("SELECT CAST(x AS VARCHAR(10)), y::int", "SELECT CAST(x AS VARCHAR(?)), y::int"),
        ("WHERE a = %(a_1)s AND b = %s AND c = :c AND d = ?", "WHERE a = ? AND b = ? AND c = ? AND d = ?"),
        ("WHERE id IN (1, 2, 3)", "WHERE id IN (?)"),
        ("WHERE id IN (%(id_1_1)s, %(id_1_2)s)", "WHERE id IN (?)"),
        ("WHERE id IN (__[POSTCOMPILE_id_1])", "WHERE id IN (?)"),
        ("INSERT INTO a VALUES (1, now()), (2, now())", "INSERT INTO a VALUES (?, now()), (?, now())"),
        ("INSERT INTO a (b, c) VALUES (1, 2), (3, 4)", "INSERT INTO a (b, c) VALUES (?)"),
        ("INSERT INTO a (b, c) VALUES (1, 2)", "INSERT INTO a (b, c) VALUES (?)"),
        ("INSERT INTO a VALUES (1, DEFAULT), (3, DEFAULT)", "INSERT INTO a VALUES (?, DEFAULT)"),
    ],
)  # fmt: skip
def test_values_become_question_marks(sql, shape):
    assert normalise(sql) == shape
    assert normalise(shape) == shape


def test_double_quotes_hold_a_value_in_mysql_and_a_name_elsewhere():
    sql = 'SELECT `a` FROM t WHERE b = "secret \\" more"'
    assert normalise(sql, "mysql") == "SELECT `a` FROM t WHERE b = ?"
    assert normalise('SELECT "a b"', "postgresql") == 'SELECT "a b"'


def test_a_huge_statement_is_cut_and_marked():
    shape = normalise("SELECT " + "column_name, " * 1_000_000)
    assert len(shape) == MAX_SHAPE + 1
    assert shape.endswith("…")


def test_a_value_that_the_cut_goes_through_is_not_shown():
    assert "secret" not in normalise("SELECT '" + "secret" * 1_000_000)
