"""What claiming and looking read does not grow with what waits: the plans of the very statements that are sent."""

from __future__ import annotations

import os
import uuid
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from virtflow.persistence.models.jobs import jobs
from virtflow.worker.boards.board import CLAIMED, OPERATIONS, READY, host_topic

BACKLOG = int(os.environ.get("VIRTFLOW_TEST_BACKLOG", "3000"))
SORTING = ("TEMP B-TREE", "SCAN", "SEQ SCAN", "SORT", "FILESORT", "TEMPORARY", "'ALL'")
"""Words of plans that read more than the first entry of an index."""


@pytest.fixture
def backlog(database):
    """Jobs that wait on three topics, among them expired and delayed ones."""
    rows = [
        {
            "name": str(uuid.uuid4()),
            "topic": (OPERATIONS, host_topic("a"), host_topic("b"))[number % 3],
            "operation": str(uuid.uuid4()),
            "state": READY if number % 50 else CLAIMED,
            "priority": number % 5,
            "place": number % 5 if number % 50 else None,
            "created_at": number,
            "due_at": None if number % 50 else 2**60,
            "claim": 1,
            "attempts": 0,
            "again": 0,
        }
        for number in range(BACKLOG)
    ]
    with database.transaction() as connection:
        connection.execute(sa.insert(jobs), rows)


@contextmanager
def statements_of(database):
    """All statements that are sent meanwhile, with their parameters."""
    sent = []

    def listen(_connection, _cursor, statement, parameters, _context, _many):
        sent.append((statement, parameters))

    sa.event.listen(database.engine, "before_cursor_execute", listen)
    yield sent
    sa.event.remove(database.engine, "before_cursor_execute", listen)


def plan(connection, statement, parameters) -> str:
    explain = "EXPLAIN QUERY PLAN " if connection.dialect.name == "sqlite" else "EXPLAIN "
    return "\n".join(str(tuple(row)) for row in connection.exec_driver_sql(explain + statement, parameters)).upper()


def plans(database, sent) -> list[str]:
    about_jobs = [one for one in sent if "jobs" in one[0] and not one[0].startswith("SET")]
    assert about_jobs
    with database.connect() as connection:
        return [plan(connection, *one) for one in about_jobs]


@pytest.mark.parametrize("topics", [[OPERATIONS], [OPERATIONS, host_topic("a")]], ids=["one topic", "two topics"])
def test_claiming_looking_and_finishing_sort_and_scan_nothing(board, database, backlog, topics):
    board.claim(topics, "w", 60)  # which has put back what was due
    with statements_of(database) as sent:
        job = board.claim(topics, "w", 60)
        board.repository.look(topics)
        board.extend(job, 60)
        board.finish(job)
    shown = plans(database, sent)
    assert len(shown) >= 4
    for one in shown:
        used = one.replace("USING INDEX", "").replace("INDEX SCAN", "").replace("INDEX ONLY SCAN", "")
        used = used.replace("BITMAP HEAP SCAN", "").replace("SCAN CONSTANT ROW", "").replace("INDEX SCAN BACKWARD", "")
        assert not [word for word in SORTING if word in used.replace("SUBPLAN", "")], one


def test_the_first_of_a_topic_comes_from_its_index(board, database, backlog):
    with statements_of(database) as sent:
        board.claim([OPERATIONS], "w", 60)
    claims = [one for one in plans(database, sent) if "IX_JOBS_CLAIMABLE" in one]
    assert claims
