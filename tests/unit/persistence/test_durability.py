"""What a commit waits for on SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from virtflow.persistence import schema
from virtflow.persistence.database import Database
from virtflow.persistence.jobs import JobRepository
from virtflow.persistence.posting import Posting
from virtflow.persistence.writer import Writer

_NORMAL, _FULL = 1, 2
_OPERATION = "6f1de2a0-9b3f-4d0c-8a3e-1f0f5f1c2f11"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'v.db'}")
    schema.upgrade(database)
    yield database
    database.close()


def test_a_transaction_waits_for_the_disk_unless_it_says_otherwise(database: Database) -> None:
    levels = []
    for durable in (True, False, True):
        with database.transaction(durable=durable) as connection:
            levels.append(connection.execute(sa.text("PRAGMA synchronous")).scalar())
    assert levels == [_FULL, _NORMAL, _FULL]


def test_claiming_and_finishing_a_job_do_not_wait_for_the_disk_but_posting_it_does(database: Database) -> None:
    levels: list[int] = []

    def look(connection: sa.Connection) -> None:
        cursor = connection.connection.cursor()
        levels.append(cursor.execute("PRAGMA synchronous").fetchone()[0])

    writer = Writer(database)
    jobs = JobRepository(database, writer)
    jobs.post(Posting("operations", _OPERATION))
    assert writer._connection.execute("PRAGMA synchronous").fetchone()[0] == _FULL
    sa.event.listen(database.engine, "commit", look)
    job = jobs.claim(["operations"], "me", 60)
    assert job is not None
    assert jobs.finish(job)
    assert set(levels) == {_NORMAL}
    writer.close()
