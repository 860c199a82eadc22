"""The SQL board on real servers: PostgreSQL, which notifies and is restarted meanwhile, and MariaDB."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from tests.lab import mariadb as lab_mariadb
from tests.lab import postgres as lab_postgres
from virtflow.engine.answers import Answers
from virtflow.persistence import schema, segments
from virtflow.persistence.database import Database
from virtflow.persistence.job_news import news_of
from virtflow.persistence.models.jobs import jobs
from virtflow.persistence.recorder import Recorder, Statements
from virtflow.persistence.segments import Segment, SegmentStatements
from virtflow.persistence.writer import Writer
from virtflow.worker.boards.board import OPERATIONS, Posting
from virtflow.worker.boards.sql import SqlBoard

UNIT = Path(__file__).parents[1] / "unit" / "worker" / "boards"
MODULES = ["sql_board", "sql_board_plans", "taskflow_sql"]
TOPICS = (OPERATIONS,)

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def mariadb_server() -> Iterator[lab_mariadb.MariaDB]:
    if reason := lab_mariadb.missing():
        pytest.skip(reason)
    with lab_mariadb.mariadb() as server:
        yield server


def posting() -> Posting:
    return Posting(OPERATIONS, str(uuid.uuid4()))


def segment(asked_at: int) -> Segment:
    fields = {"operation": str(uuid.uuid4()), "kind": "spawn.host", "host": "h1", "verb": segments.RUN, "debts": 0}
    answer = {"state": segments.REQUESTED, "inputs": {}, "outputs": None, "error": None, "retry_elsewhere": True}
    return Segment(id=str(uuid.uuid4()), **fields, **answer, created_at=asked_at, updated_at=asked_at)


def run_unit_tests(url: str, **environment: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [str(UNIT / f"test_{module}.py") for module in MODULES]
    variables = os.environ | {"VIRTFLOW_TEST_DATABASE": url, "CI": ""} | environment
    done = subprocess.run(command, env=variables, cwd=UNIT.parents[3], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.must_run
def test_everything_that_holds_on_sqlite_holds_on_postgresql(fresh_postgres_url):
    run_unit_tests(fresh_postgres_url, VIRTFLOW_TEST_BACKLOG="20000")


def test_everything_that_holds_on_sqlite_holds_on_mariadb(mariadb_server):
    run_unit_tests(mariadb_server.create_database())


def test_mariadb_takes_all_migrations(mariadb_server):
    database = Database(mariadb_server.create_database())
    schema.upgrade(database)
    schema.check(database)
    with database.connect() as connection:
        assert connection.execute(jobs.select()).all() == []
    database.close()


@pytest.mark.must_run
def test_a_posting_wakes_who_waits_elsewhere_by_a_notification(fresh_postgres_url):
    poster, waiter = Database(fresh_postgres_url), Database(fresh_postgres_url)
    schema.upgrade(poster)
    posting_board, waiting_board = SqlBoard(poster), SqlBoard(waiter)
    queries = []
    look = waiting_board.repository.look
    waiting_board.repository.look = lambda topics: queries.append(topics) or look(topics)
    assert not waiting_board.wait(TOPICS, 0.5)  # by now it listens
    with ThreadPoolExecutor(1) as pool:
        queries.clear()
        waiting = pool.submit(waiting_board.wait, TOPICS, 60)
        time.sleep(1)
        assert len(queries) == 1  # it looked once, and sleeps
        posting_board.post(posting())
        assert waiting.result(30)
        assert len(queries) == 2
    for board in (posting_board, waiting_board):
        board.close()
        board.database.close()


@pytest.mark.must_run
def test_a_verdict_wakes_who_waits_elsewhere_by_a_notification(fresh_postgres_url):
    host, parent = Database(fresh_postgres_url), Database(fresh_postgres_url)
    schema.upgrade(host)
    board, writer = SqlBoard(parent), Writer(host)
    assert not board.wait(TOPICS, 0.5)  # by now it listens
    answers = Answers(SimpleNamespace(ended=lambda _segments: set()), news_of(parent))
    recorder, statements = Recorder(writer, Statements(writer), None), SegmentStatements(writer)
    now = host.clock.now()
    short, put_down, long = segment(now), segment(now), segment(now - 3_000_000)
    with (
        answers.expecting(short.id) as heard,
        answers.expecting(put_down.id) as nothing,
        answers.expecting(long.id) as late,
    ):
        statements.answer(recorder, put_down, segments.REQUESTED)
        statements.answer(recorder, long, segments.DONE, outputs={})
        statements.answer(recorder, short, segments.DONE, outputs={})
        recorder.flush()
        assert heard.wait(30)
        assert not nothing.is_set()
        assert not late.is_set(), "every worker was woken for what nobody waits for impatiently"
    answers.close()
    board.close()
    writer.close()
    for database in (host, parent):
        database.close()


@pytest.mark.must_run
def test_a_restart_of_postgresql_is_survived_by_posting_claiming_and_waiting():
    if reason := lab_postgres.missing():
        pytest.skip(reason)
    with lab_postgres.postgres(durable=True) as server:  # otherwise a crash forgets the last commits
        database = Database(server.create_database())
        schema.upgrade(database)
        board = SqlBoard(database, patience=60)
        board.post(posting())
        held = board.claim(TOPICS, "w", 600)
        with database.connect() as connection:  # the commit of a claim does not wait for the disk
            connection.execute(sa.text("CHECKPOINT"))
        assert not board.wait(TOPICS, 0.2)
        with ThreadPoolExecutor(3) as pool:
            waiting = pool.submit(board.wait, TOPICS, 120)
            control(server, "stop", "-m", "immediate")
            finishing = pool.submit(board.finish, held)
            one = posting()
            posted = pool.submit(board.post, one)
            try:
                assert not posted.done()
                control(server, "start", "-l", str(server.directory / "second-log"))
                assert posted.result(60) == one.name
                assert finishing.result(60)
                assert waiting.result(60)
                assert board.claim(TOPICS, "w", 60).operation == one.operation
            finally:
                board.close()
                database.close()
                control(server, "stop", "-m", "fast")


def control(server: lab_postgres.Postgres, action: str, *options: str) -> None:
    """pg_ctl, as the server's user; a start takes the options that the server had."""
    owner = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"] if os.geteuid() == 0 else []
    data = server.directory / "data"
    given = (data / "postmaster.opts").read_text().split('"')[1::2]
    if action == "start":
        settings = given[given.index("-c") :]
        options = (*options, "-o", " ".join(settings))
    command = [*owner, str(lab_postgres.programs() / "pg_ctl"), "-D", str(data), "-w", "-s", action, *options]
    subprocess.run(command, check=True, capture_output=True, cwd=server.directory)
