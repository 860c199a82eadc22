"""TaskFlow's interface on the SQL board: its own tests of boards, its own conductor, and what its other boards lack."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa

pytest.importorskip("testtools")

from virtflow.eventletless import without_eventlet

with without_eventlet():  # once it is imported, every fork of the test run is warned of
    from taskflow import exceptions as exc
    from taskflow import states, test
    from taskflow.conductors import backends as conductors
    from taskflow.jobs import backends
    from taskflow.jobs.base import POSTED, REMOVAL, JobPriority
    from taskflow.tests.unit.jobs import base

from virtflow.persistence.models.jobs import jobs
from virtflow.worker.boards.taskflow_sql import SqlJobBoard


class TestTaskflowsOwnTests(test.TestCase, base.BoardTestMixin):
    """What TaskFlow demands of every board."""

    @pytest.fixture(autouse=True)
    def _database(self, database):
        self._database = database

    def create_board(self, persistence=None):
        return None, SqlJobBoard("test", {}, persistence=persistence, database=self._database)

    def setUp(self):
        super().setUp()
        self.client, self.board = self.create_board()


@pytest.fixture
def taskflow_board(database):
    board = SqlJobBoard("test", {"lease": 60, "max_attempts": 2}, database=database)
    board.connect()
    yield board
    board.close()


def expire_leases(database):
    with database.transaction() as connection:
        connection.execute(sa.update(jobs).where(jobs.c.due_at.is_not(None)).values(due_at=1))


def test_the_board_is_found_by_its_entry_point(database):
    conf = {"board": "virtflow", "connection": database.engine.url.render_as_string(hide_password=False)}
    with backends.backend("test", conf) as board:
        board.post("job")
        assert board.job_count == 1
    assert not board.connected


def test_jobs_come_by_priority_and_within_one_the_oldest_first(taskflow_board):
    for name in ("low", "normal", "high", "high 2", "normal 2"):
        taskflow_board.post(name, priority=JobPriority.convert(name.split()[0]))
    assert [job.name for job in taskflow_board.iterjobs()] == ["high", "high 2", "normal", "normal 2", "low"]


def test_a_job_keeps_its_details_and_says_when_it_was_posted(taskflow_board):
    posted = taskflow_board.post("job", details={"a": [1, None]}, priority=JobPriority.HIGH)
    [found] = taskflow_board.iterjobs()
    assert (found.uuid, found.name, found.details) == (posted.uuid, "job", {"a": [1, None]})
    assert (found.priority, found.created_on) == (JobPriority.HIGH, found.last_modified)
    taskflow_board.claim(found, "me")
    assert found.last_modified >= found.created_on
    assert found.expires_in() == pytest.approx(60, abs=5)
    taskflow_board.abandon(found, "me")
    assert found.expires_in() == -1


def test_the_boards_thread_keeps_a_claim_however_long_the_work_takes(database):
    board = SqlJobBoard("test", {"lease": 0.6}, database=database)
    board.connect()
    job = board.post("long")
    board.claim(job, "me")
    extended = threading.Event()
    seen = job.expires_in()
    for _ in range(200):
        threading.Event().wait(0.02)
        now = job.expires_in()
        if now > seen:  # time alone only makes it less
            extended.set()
            break
        seen = now
    assert extended.is_set()
    board.close()


def test_a_claim_ends_when_its_process_does_and_what_it_does_later_is_refused(taskflow_board, database):
    job = taskflow_board.post("job")
    taskflow_board.claim(job, "me")
    expire_leases(database)
    assert taskflow_board.find_owner(job) is None
    other = SqlJobBoard("test", {}, database=database)
    other.connect()
    other.claim(job, "other")
    for change in (taskflow_board.consume, taskflow_board.abandon, taskflow_board.trash):
        with pytest.raises(exc.JobFailure, match="not owned"):
            change(job, "me")
    assert not job.extend_expiry(60)
    other.consume(job, "other")
    assert job.state == states.COMPLETE
    other.close()


def test_a_later_claim_of_the_same_name_is_not_taken_for_the_earlier(taskflow_board, database):
    job = taskflow_board.post("job")
    taskflow_board.claim(job, "same")
    expire_leases(database)
    restarted = SqlJobBoard("test", {}, database=database)
    restarted.connect()
    restarted.claim(job, "same")
    with pytest.raises(exc.JobFailure, match="any more"):
        taskflow_board.consume(job, "same")
    restarted.consume(job, "same")
    restarted.close()


def test_a_claim_with_an_expiry_of_its_own_is_extended_by_its_owner(taskflow_board):
    job = taskflow_board.post("job")
    taskflow_board.claim(job, "me", expiry=30)
    taskflow_board.extend_claims()
    assert job.expires_in() == pytest.approx(30, abs=5)
    assert job.extend_expiry(90)
    assert job.expires_in() == pytest.approx(90, abs=5)


def test_what_is_trashed_keeps_its_row_and_is_listed(taskflow_board):
    job = taskflow_board.post("bad", details={"a": 1})
    taskflow_board.claim(job, "me")
    taskflow_board.trash(job, "me")
    assert list(taskflow_board.iterjobs()) == []
    assert taskflow_board.job_count == 0
    [trashed] = taskflow_board.trashed()
    assert (trashed.name, trashed.details, trashed.state) == ("bad", {"a": 1}, states.FAILURE)
    with pytest.raises(exc.UnclaimableJob):
        taskflow_board.claim(trashed, "me")
    with pytest.raises(exc.JobFailure, match="trashed"):
        job.wait(timeout=1)


def test_a_job_that_kills_its_workers_is_set_aside(taskflow_board, database):
    job = taskflow_board.post("poison")
    for attempt in (1, 2):
        taskflow_board.claim(job, "me")
        assert job.attempts == attempt
        expire_leases(database)
    with pytest.raises(exc.UnclaimableJob, match="claimed 2 times"):
        taskflow_board.claim(job, "me")
    assert [one.name for one in taskflow_board.trashed()] == ["poison"]


def test_listeners_hear_what_comes_and_goes_also_through_another_board(taskflow_board, database):
    heard, posted, removed = [], threading.Event(), threading.Event()

    def listen(event, details):
        heard.append((event, details["job"].name))
        (posted if event == POSTED else removed).set()

    for event in (POSTED, REMOVAL):
        taskflow_board.notifier.register(event, listen)
    other = SqlJobBoard("test", {}, database=database)
    other.connect()
    job = other.post("job")
    assert posted.wait(30)
    other.claim(job, "me")
    other.consume(job, "me")
    assert removed.wait(30)
    assert heard == [(POSTED, "job"), (REMOVAL, "job")]
    other.close()


def test_boards_of_other_paths_and_operations_do_not_see_each_other(taskflow_board, board, database):
    other = SqlJobBoard("other", {}, database=database)
    other.connect()
    job = other.post("job")
    assert list(taskflow_board.iterjobs()) == []
    assert board.jobs() == []
    assert board.claim(["taskflow.test"], "me", 60) is None
    assert not board.release(job.uuid)
    other.close()


def test_names_of_claimers_are_checked(taskflow_board):
    job = taskflow_board.post("job")
    with pytest.raises(TypeError):
        taskflow_board.claim(job, 7)
    with pytest.raises(ValueError, match="name"):
        taskflow_board.claim(job, "")


def test_taskflows_own_conductor_registers_and_works(taskflow_board):
    conductor = conductors.fetch("nonblocking", "conductor", taskflow_board, engine="serial", wait_timeout=0.05)
    thread = threading.Thread(target=conductor.run)
    thread.start()
    job = taskflow_board.post("job without a flow")
    trashed = wait_for(lambda: job.state == states.FAILURE)
    conductor.stop()
    assert conductor.wait(30)
    thread.join()
    assert trashed  # a job without a logbook cannot be run: TaskFlow's conductor trashes it
    assert [entity["kind"] for entity in taskflow_board.registered()] == ["conductor"]


def wait_for(condition):
    for _ in range(1000):
        if condition():
            return True
        threading.Event().wait(0.02)
    return False
