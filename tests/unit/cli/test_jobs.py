"""``virtflow job`` and ``virtflow host fence``: what an operator does about work that does not get on."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from tests.unit.cli.conftest import Cli
from virtflow.persistence.database import Database
from virtflow.persistence.hosts import FENCED, HostRepository
from virtflow.persistence.models.inventory import hosts as host_rows
from virtflow.worker.boards.board import OPERATIONS, Posting
from virtflow.worker.boards.sql import SqlBoard

OPERATION = str(uuid.uuid4())


@pytest.fixture
def board(database: Database) -> Iterator[SqlBoard]:
    board = SqlBoard(database)
    board.post(Posting(OPERATIONS, OPERATION))
    yield board
    board.close()


def state_of(board: SqlBoard) -> str:
    (job,) = board.jobs()
    return job.state


@pytest.mark.usefixtures("board")
def test_jobs_are_listed_and_shown(cli: Cli) -> None:
    answer = cli("job", "list", "-f", "json")
    assert answer.code == 0, answer.err
    (listed,) = json.loads(answer.out)
    assert listed["state"] == "READY"
    shown = json.loads(cli("job", "show", OPERATION, "-f", "json").out)
    assert (shown["operation"], shown["topic"]) == (OPERATION, OPERATIONS)


def test_a_job_is_parked_and_let_go_on(cli: Cli, board: SqlBoard) -> None:
    assert cli("job", "park", OPERATION).code == 0
    assert state_of(board) == "PARKED"
    assert cli("job", "unpark", OPERATION).code == 0
    assert state_of(board) == "READY"


def test_a_job_is_taken_from_its_owner(cli: Cli, board: SqlBoard) -> None:
    assert board.claim([OPERATIONS], "somebody", 60.0) is not None
    assert cli("job", "release", OPERATION).code == 0
    assert state_of(board) == "READY"


@pytest.mark.parametrize("verb", ["show", "release", "park", "unpark"])
def test_a_job_that_does_not_exist_is_not_found(cli: Cli, database: Database, verb: str) -> None:
    assert database is not None
    answer = cli("job", verb, str(uuid.uuid4()))
    assert answer.code == 3
    assert len(answer.err.splitlines()) == 1


def test_a_host_is_fenced_only_by_one_who_says_so_and_only_when_its_worker_is_gone(
    cli: Cli, database: Database
) -> None:
    hosts = HostRepository(database)
    hosts.register("h1", 1, 1024, 10, worker="somebody")
    assert "its worker lives" in cli("host", "fence", "h1", "--yes").err
    with database.transaction() as connection:
        connection.execute(sa.update(host_rows).values(heartbeat_at=0))
    assert cli("host", "fence", "h1").code != 0
    assert hosts.get("h1").state != FENCED
    assert cli("host", "fence", "h1", "--yes").code == 0
    assert hosts.get("h1").state == FENCED
