"""Seeing that somebody else has written to SQLite, without a query."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from virtflow.persistence.changes import SqliteChanges
from virtflow.persistence.database import Database


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'v.db'}")
    write(database, "CREATE TABLE t (x INTEGER)")
    yield database
    database.close()


def write(database: Database, statement: str) -> None:
    with database.transaction() as connection:
        connection.execute(sa.text(statement))


def test_every_commit_of_another_connection_is_seen_and_reading_is_none(written: Database, tmp_path: Path) -> None:
    watching = Database(f"sqlite:///{tmp_path / 'v.db'}")
    changes = SqliteChanges(watching)
    before = changes.count()
    with written.connect() as connection:
        connection.execute(sa.text("SELECT x FROM t"))
    assert changes.count() == before
    for done in (1, 2):
        write(written, f"INSERT INTO t VALUES ({done})")
        assert changes.count() == before + done
        assert changes.count() == before + done
    write(watching, "INSERT INTO t VALUES (3)")
    assert changes.count() == before + 3, "what this process writes itself is a change too"
    changes.close()
    watching.close()


def test_a_database_that_cannot_be_asked_may_have_changed(tmp_path: Path) -> None:
    away = Database(f"sqlite:///{tmp_path / 'no' / 'such' / 'v.db'}")
    changes = SqliteChanges(away)
    assert changes.count() < changes.count()
    changes.close()
    away.close()
