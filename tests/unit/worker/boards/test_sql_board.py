"""The SQL board: order, leases, attempts, parking, and that nothing is claimed twice."""

from __future__ import annotations

import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from subprocess import PIPE

import pytest
import sqlalchemy as sa

from virtflow.errors import BoardUnreachable, InvalidJob
from virtflow.persistence.database import Database
from virtflow.persistence.job_statements import JobStatements, record_finish, record_posting
from virtflow.persistence.models.jobs import jobs
from virtflow.persistence.recorder import Recorder, Statements
from virtflow.persistence.writer import Writer
from virtflow.worker.boards.board import CLAIMED, OPERATIONS, PARKED, READY, Posting, host_topic
from virtflow.worker.boards.sql import SqlBoard

ROOT = Path(__file__).parents[4]
TOPICS = (OPERATIONS,)


def posting(created_at: int = 1, **fields) -> Posting:
    return Posting(**{"topic": OPERATIONS, "operation": str(uuid.uuid4()), "created_at": created_at, **fields})


def expire_leases(database: Database) -> None:
    with database.transaction() as connection:
        connection.execute(sa.update(jobs).where(jobs.c.due_at.is_not(None)).values(due_at=1))


# -- order


def test_urgent_jobs_come_first_and_within_a_priority_the_oldest(board):
    wanted = [
        posting(9, priority="very_high"),
        posting(5, priority="high"),
        posting(1),
        posting(2),
        posting(2),
        posting(0, priority="low"),
        posting(0, priority="very_low"),
    ]
    for one in (wanted[5], wanted[2], wanted[6], wanted[1], wanted[3], wanted[0], wanted[4]):
        board.post(one)
    assert [job.operation for job in board.jobs()] == [one.operation for one in wanted]
    claimed = [board.claim(TOPICS, "w", 60) for _ in wanted]
    assert [job.operation for job in claimed] == [one.operation for one in wanted]
    assert board.claim(TOPICS, "w", 60) is None


def test_only_the_topics_asked_for_are_claimed_the_oldest_of_all_of_them_first(board):
    a, b = host_topic("a"), host_topic("b")
    first, second, third = posting(3, topic=b), posting(4, topic=a), posting(5, topic=b)
    for one in (third, second, first, posting(1, topic=host_topic("c"))):
        board.post(one)
    claimed = [board.claim([a, b], "w", 60) for _ in range(4)]
    assert [job and job.operation for job in claimed] == [first.operation, second.operation, third.operation, None]


def test_what_is_claimed_says_everything_about_the_job(board):
    one = posting(7, topic=host_topic("a"), segment=str(uuid.uuid4()), priority="high")
    assert board.post(one) == one.name == f"{one.operation}/{one.segment}"
    job = board.claim([host_topic("a")], "worker", 60)
    assert (job.name, job.operation, job.segment, job.priority) == (one.name, one.operation, one.segment, "high")
    assert (job.state, job.owner, job.attempts, job.created_at, job.error) == (CLAIMED, "worker", 1, 7, None)
    assert job.expires_at - job.claimed_at == pytest.approx(60_000_000, abs=1000)
    assert board.jobs() == [job]
    assert board.jobs(OPERATIONS) == []


# -- a name is on the board once


def test_posting_twice_while_it_waits_is_once(board):
    one = posting()
    assert board.post(one) == board.post(one)
    assert len(board.jobs()) == 1


def test_what_is_posted_while_it_is_worked_on_waits_again_when_it_is_finished(board):
    one = posting()
    board.post(one)
    job = board.claim(TOPICS, "w", 60)
    board.post(one)
    assert board.claim(TOPICS, "other", 60) is None
    assert board.finish(job)
    again = board.claim(TOPICS, "w", 60)
    assert (again.operation, again.attempts) == (one.operation, 1)
    assert board.finish(again)
    assert board.jobs() == []


def test_a_parked_job_stays_parked_when_it_is_posted_again(board):
    one = posting()
    board.post(one)
    board.park(board.claim(TOPICS, "w", 60), "broken")
    board.post(one)
    assert [(job.state, job.error) for job in board.jobs()] == [(PARKED, "broken")]
    assert board.claim(TOPICS, "w", 60) is None


# -- leases


def test_an_expired_lease_is_taken_over_and_its_owner_can_do_nothing_more(board, database):
    board.post(posting())
    lost = board.claim(TOPICS, "slow", 60)
    assert board.claim(TOPICS, "fast", 60) is None
    expire_leases(database)
    taken = board.claim(TOPICS, "fast", 60)
    assert (taken.id, taken.owner, taken.attempts) == (lost.id, "fast", 2)
    assert "not heard of" in taken.error
    changes = [
        board.extend(lost, 60),
        board.finish(lost),
        board.give_back(lost),
        board.give_back(lost, error="x"),
        board.park(lost, "x"),
    ]
    assert changes == [False] * 5
    assert board.jobs() == [taken]
    assert board.finish(taken)


def test_an_earlier_claim_of_the_same_owner_counts_for_nothing(board, database):
    one = posting()
    board.post(one)
    lost = board.claim(TOPICS, "w", 60)
    expire_leases(database)
    second = board.claim(TOPICS, "w", 60)
    assert not board.extend(lost, 60)
    assert board.finish(second)
    board.post(one)  # a new row: its first claim must not look like the lost one either
    third = board.claim(TOPICS, "w", 60)
    assert third.claim > second.claim > lost.claim
    assert not board.finish(lost)
    assert board.finish(third)


def test_an_extended_lease_lasts_longer(board):
    board.post(posting())
    job = board.claim(TOPICS, "w", 1)
    assert board.extend(job, 3600)
    extended = board.jobs()[0]
    assert extended.expires_at > job.expires_at + 3_500_000_000
    assert extended.attempts == 1


def test_a_job_taken_from_its_owner_can_be_claimed_at_once(board):
    one = posting()
    board.post(one)
    assert not board.release(one.name)
    lost = board.claim(TOPICS, "w", 60)
    assert board.release(one.name)
    assert not board.extend(lost, 60)
    assert board.claim(TOPICS, "other", 60).owner == "other"


# -- giving back, attempts, parking


def test_what_is_given_back_without_an_error_costs_no_attempt(board):
    board.post(posting())
    for _ in range(10):
        job = board.claim(TOPICS, "w", 60)
        assert job.attempts == 1
        assert board.give_back(job)


def test_what_is_given_back_for_later_is_claimed_later(board, database):
    board.post(posting())
    board.give_back(board.claim(TOPICS, "w", 60), delay=60, error="no")
    assert board.claim(TOPICS, "w", 60) is None
    waiting = board.jobs()[0]
    assert (waiting.state, waiting.error, waiting.attempts, waiting.expires_at) == (READY, "no", 1, None)
    assert waiting.not_before is not None
    expire_leases(database)
    assert board.claim(TOPICS, "w", 60).error == "no"


def test_news_ends_a_delay(board):
    one = posting()
    board.post(one)
    board.give_back(board.claim(TOPICS, "w", 60), delay=60)
    board.post(one)
    assert board.claim(TOPICS, "w", 60) is not None


def test_news_that_came_while_it_was_worked_on_allows_no_delay(board):
    one = posting()
    board.post(one)
    job = board.claim(TOPICS, "w", 60)
    board.post(one)
    board.give_back(job, delay=60)
    assert board.claim(TOPICS, "w", 60) is not None


def test_the_last_failed_attempt_parks_it(board):
    board.post(posting())
    for attempt in (1, 2, 3):
        job = board.claim(TOPICS, "w", 60)
        assert job.attempts == attempt
        board.give_back(job, error=f"failure {attempt}")
    parked = board.jobs()[0]
    assert (parked.state, parked.error, parked.attempts, parked.owner) == (PARKED, "failure 3", 3, None)
    assert board.claim(TOPICS, "w", 60) is None


def test_what_kills_its_workers_is_parked_and_the_next_job_is_claimed_instead(board, database):
    poison, other = posting(1), posting(2)
    board.post(poison)
    for _ in range(3):
        assert board.claim(TOPICS, "w", 60).operation == poison.operation
        expire_leases(database)
    board.post(other)
    assert board.claim(TOPICS, "w", 60).operation == other.operation
    assert board.claim(TOPICS, "w", 60) is None
    parked = board.jobs()[-1]
    assert (parked.operation, parked.state, parked.attempts) == (poison.operation, PARKED, 3)
    assert "claimed 3 times" in parked.error


def test_an_unparked_job_has_all_its_attempts_again(board):
    one = posting()
    board.post(one)
    board.park(board.claim(TOPICS, "w", 60), "broken")
    assert not board.unpark("something else")
    assert board.unpark(one.name)
    assert not board.unpark(one.name)
    job = board.claim(TOPICS, "w", 60)
    assert (job.attempts, job.error) == (1, None)


# -- what is on the board is not trusted


@pytest.mark.parametrize(
    "fields",
    [
        {"operation": "../../etc/passwd"},
        {"operation": "6AF3A2F5-9B5C-4B4D-9C0C-2E2E4E6B0E11"},
        {"operation": None},
        {"segment": "x"},
        {"topic": "a/b"},
        {"topic": ""},
        {"priority": "urgent"},
        {"created_at": 1.5},
    ],
)
def test_nothing_but_ids_can_be_posted(fields):
    with pytest.raises(InvalidJob):
        posting(**fields)


def test_a_job_that_somebody_else_wrote_is_parked_not_run(board, database):
    one, good = posting(1), posting(2)
    board.post(one)
    with database.transaction() as connection:
        connection.execute(sa.update(jobs).values(operation="not a uuid", priority=77))
    board.post(good)
    assert board.claim(TOPICS, "w", 60).operation == good.operation
    parked = board.jobs()[-1]
    assert (parked.name, parked.state) == (one.name, PARKED)
    assert "operation is not a uuid" in parked.error


# -- posted with what makes it necessary


def test_a_job_is_posted_and_finished_in_the_recorders_commit(board, database):
    writer = Writer(database)
    statements = JobStatements(writer)
    recorder = Recorder(writer, Statements(writer), None)
    one = posting()
    record_posting(recorder, statements, one)
    assert board.jobs() == []
    recorder.flush()
    job = board.claim(TOPICS, "w", 60)
    record_finish(recorder, statements, job)
    record_posting(recorder, statements, posting(2))
    recorder.flush()
    assert [left.created_at for left in board.jobs()] == [2]
    assert writer.commits == 2
    writer.close()


def test_a_commit_that_fails_posts_nothing(board, database):
    writer = Writer(database)
    recorder = Recorder(writer, Statements(writer), None)
    record_posting(recorder, JobStatements(writer), posting())
    twice = sa.insert(jobs).values(
        {name: sa.bindparam(name) for name in ("id", "name", "topic", "state", "priority", "created_at", "claim")}
        | {"attempts": sa.literal_column("0"), "again": sa.literal_column("0")}
    )
    statement = writer.compile(twice)
    for _ in range(2):
        row = {"id": 900, "name": "n", "topic": "t", "state": READY, "priority": 1, "created_at": 1, "claim": 1}
        recorder.also(statement, [row[column] for column in statement.columns])
    with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
        recorder.flush()
    assert board.jobs() == []
    writer.close()


# -- many at once


def test_threads_that_claim_at_once_never_get_the_same_job(board):
    posted = [posting(number) for number in range(60)]
    for one in posted:
        board.post(one)

    def work(worker: int) -> list[str]:
        mine = []
        while (job := board.claim(TOPICS, f"w{worker}", 60)) is not None:
            mine.append(job.operation)
            assert board.finish(job)
        return mine

    with ThreadPoolExecutor(6) as pool:
        shares = list(pool.map(work, range(6)))
    assert sorted(job for share in shares for job in share) == sorted(one.operation for one in posted)
    assert board.jobs() == []


_CLAIMER = """
import sys
from virtflow.persistence.database import Database
from virtflow.worker.boards.sql import SqlBoard
board = SqlBoard(Database(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
while (job := board.claim(["operations"], sys.argv[2], 60)) is not None:
    print(job.operation)
    assert board.finish(job)
board.close()
"""


def test_processes_that_claim_at_once_never_get_the_same_job(board, database):
    posted = [posting(number) for number in range(60)]
    for one in posted:
        board.post(one)
    command = [sys.executable, "-c", _CLAIMER, database.engine.url.render_as_string(hide_password=False)]
    with ExitStack() as stack:
        running = []
        for number in range(3):
            start = subprocess.Popen([*command, f"w{number}"], cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True)
            running.append(stack.enter_context(start))
            stack.callback(start.kill)
        assert [process.stdout.readline() for process in running] == ["ready\n"] * 3
        for process in running:
            process.stdin.write("go\n")
            process.stdin.flush()
        shares = [process.communicate()[0].split() for process in running]
        assert [process.returncode for process in running] == [0, 0, 0]
    assert sorted(job for share in shares for job in share) == sorted(one.operation for one in posted)
    assert board.jobs() == []


# -- waiting


def test_who_waits_is_woken_by_a_posting_of_the_same_process(board):
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(board.wait, TOPICS, 60)
        board.post(posting())
        assert waiting.result(30)


def test_who_waits_is_woken_by_another_connection(board, database):
    other = SqlBoard(Database(database.engine.url.render_as_string(hide_password=False)))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(board.wait, TOPICS, 60)
        other.post(posting())
        assert waiting.result(30)
    other.close()
    other.database.close()


def test_who_waits_is_woken_by_a_commit_of_the_recorder(board, database):
    recorder = Recorder(writer := Writer(database), Statements(writer), None)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(board.wait, TOPICS, 60)
        record_posting(recorder, JobStatements(writer), posting())
        recorder.flush()
        assert waiting.result(30)
    writer.close()


def test_waiting_ends_when_a_lease_or_a_delay_does(board):
    board.post(posting())
    assert board.claim(TOPICS, "killed", 0.2)
    assert board.wait(TOPICS, 60)
    job = board.claim(TOPICS, "w", 60)
    assert job.attempts == 2
    board.give_back(job, delay=0.2)
    assert board.wait(TOPICS, 60)
    assert board.claim(TOPICS, "w", 60)


def test_other_topics_and_claimed_jobs_wake_nobody(board):
    board.post(posting(topic=host_topic("elsewhere")))
    board.post(posting())
    board.claim(TOPICS, "w", 60)
    assert not board.wait(TOPICS, 0.2)


def test_closing_the_board_ends_waiting(database):
    board = SqlBoard(database)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(board.wait, TOPICS, 60)
        threading.Event().wait(0.05)
        board.close()
        assert waiting.result(30) is False


def test_a_connection_that_is_in_use_when_the_board_is_closed_is_given_back_too(database):
    board = SqlBoard(database)
    with board.repository._unsynced():
        board.close()
    assert database.engine.pool.checkedout() == 0


# -- a database that is away


def test_a_database_that_stays_away_is_an_error_of_ours(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/no/such/directory/v.db")
    board = SqlBoard(database, patience=0.2)
    for call in (
        lambda: board.post(posting()),
        lambda: board.claim(TOPICS, "w", 60),
        board.jobs,
        lambda: board.wait(TOPICS, 1),
    ):
        with pytest.raises(BoardUnreachable, match="cannot reach job board sqlite"):
            call()
    board.close()
    database.close()


def test_a_database_without_the_table_is_not_waited_for(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/empty.db")
    board = SqlBoard(database, patience=3600)
    with pytest.raises(BoardUnreachable, match="virtflow db upgrade"):
        board.jobs()
    with pytest.raises(BoardUnreachable, match="no such table"):
        board.post(posting())
    board.close()
    database.close()
