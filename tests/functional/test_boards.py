"""One contract for every job board, each with its real server: sql on SQLite, Redis, ZooKeeper and etcd."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.lab import etcd as lab_etcd
from tests.lab import redis as lab_redis
from tests.lab import zookeeper as lab_zookeeper
from tests.lab.servers import Server, running
from virtflow.config import Config, load
from virtflow.errors import BoardUnreachable
from virtflow.persistence import schema
from virtflow.persistence.database import Database
from virtflow.persistence.posting import CLAIMED, OPERATIONS, PARKED, READY, JobRecord, Posting, host_topic
from virtflow.worker.boards import stored_board
from virtflow.worker.boards.board import Board
from virtflow.worker.boards.opening import open_board
from virtflow.worker.boards.stored_job import Entry

LEASE = 2.0
"""Seconds: the shortest that every server grants."""
_TAKEOVER = 15
_LABS = {"redis": (lab_redis, lab_redis.Redis), "zookeeper": (lab_zookeeper, lab_zookeeper.ZooKeeper)}
_LABS |= {"etcd": (lab_etcd, lab_etcd.Etcd)}
_SERVERS = ("redis", "zookeeper", "etcd")


@dataclass
class Place:
    """Somewhere to open boards, all of which are the same one."""

    kind: str
    server: Server | None
    config: Config
    database: Database
    opened: list[Board] = field(default_factory=list)

    def open(self, **options: Any) -> Board:
        """Another process' view of the board."""
        config = replace(self.config, jobboard=replace(self.config.jobboard, **options))
        board = open_board(config, self.database)
        self.opened.append(board)
        return board

    def process(self, *arguments: str) -> subprocess.Popen[str]:
        """A process that has the board open; it runs ``boards_process.py``."""
        script = Path(__file__).parent / "boards_process.py"
        options = {f"jobboard.{name}": getattr(self.config.jobboard, name) for name in ("backend", "url", "namespace")}
        options = {name: value for name, value in options.items() if value is not None}
        options |= {"state_dir": str(self.config.state_dir)}
        root = str(Path(__file__).resolve().parents[2])
        command = [sys.executable, str(script), json.dumps(options), *arguments]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)


@pytest.fixture(scope="module")
def servers() -> Iterator[Callable[[str], Server]]:
    """One of each kind, started when it is first wanted."""
    with ExitStack() as stack:
        started: dict[str, Server] = {}

        def server(kind: str) -> Server:
            module, make = _LABS[kind]
            if reason := module.missing():
                pytest.skip(reason)
            if kind not in started:
                started[kind] = stack.enter_context(running(make))
            return started[kind]

        yield server


@pytest.fixture
def place(request: pytest.FixtureRequest, servers: Callable[[str], Server], tmp_path: Path) -> Iterator[Place]:
    kind = request.param
    server = None if kind == "sql" else servers(kind)
    options = {"jobboard.backend": kind, "jobboard.namespace": f"t{uuid.uuid4().hex[:12]}", "jobboard.lease": 4}
    if server is not None:
        options["jobboard.url"] = server.url
    config = load(overrides={"state_dir": str(tmp_path), **options}, env={})
    database = Database(f"sqlite:///{tmp_path}/boards.db")
    if kind == "sql":
        schema.upgrade(database)
    here = Place(kind, server, config, database)
    yield here
    for board in here.opened:
        board.close()
    database.close()


def every_board(test: Any) -> Any:
    return pytest.mark.must_run(pytest.mark.parametrize("place", ["sql", *_SERVERS], indirect=True)(test))


def every_server(test: Any) -> Any:
    return pytest.mark.must_run(pytest.mark.parametrize("place", _SERVERS, indirect=True)(test))


def posting(topic: str = OPERATIONS, **options: Any) -> Posting:
    return Posting(topic, str(uuid.uuid4()), **options)


def claim(board: Board, owner: str = "a", *, topic: str = OPERATIONS, lease: float = 60) -> JobRecord:
    job = board.claim([topic], owner, lease)
    assert job is not None
    return job


def taken_over(board: Board, owner: str) -> JobRecord | None:
    """What ``owner`` gets once somebody else's claim ended."""
    deadline = time.monotonic() + _TAKEOVER
    while time.monotonic() < deadline:
        board.wait([OPERATIONS], deadline - time.monotonic())
        if job := board.claim([OPERATIONS], owner, 60):
            return job
    return None


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go on\n")
    process.stdin.flush()


# -- one job ----------------------------------------------------------------------------------------------------------


@every_board
def test_what_was_posted_is_claimed_once_and_gone_when_it_is_finished(place: Place) -> None:
    board, other = place.open(), place.open()
    wanted = posting(host_topic("h1"), segment=str(uuid.uuid4()), priority="high")
    job_id = board.post(wanted)
    job = claim(other, "worker 1", topic=wanted.topic)
    assert (job.id, job.topic, job.operation, job.segment) == (job_id, wanted.topic, wanted.operation, wanted.segment)
    assert (job.name, job.priority, job.created_at) == (wanted.name, "high", wanted.created_at)
    assert (job.state, job.owner, job.attempts, job.error) == (CLAIMED, "worker 1", 1, None)
    assert job.claimed_at <= job.expires_at
    assert board.claim([wanted.topic], "worker 2", 60) is None
    assert other.finish(job)
    assert board.jobs() == []
    assert not other.finish(job)


@every_board
def test_the_most_urgent_is_claimed_first_and_the_oldest_of_those(place: Place) -> None:
    board = place.open()
    moment = 1_800_000_000_000_000
    order = [("very_high", 5), ("high", 3), ("normal", 1), ("normal", 4_000_000), ("normal", 9_000_000_000), ("low", 0)]
    wanted = [posting(priority=priority, created_at=moment + age) for priority, age in order]
    for one in reversed(wanted):
        board.post(one)
    names = [one.name for one in wanted]
    assert [job.name for job in board.jobs()] == names
    assert [claim(board).name for _ in wanted] == names


@every_board
def test_a_worker_gets_jobs_of_its_topics_only_and_the_first_over_all_of_them(place: Place) -> None:
    board = place.open()
    here, there, whole = posting("host.h1"), posting("host.h1.x"), posting()
    for one in (here, there, whole):
        board.post(one)
    mine = [board.claim(["host.h1", OPERATIONS], "a", 60) for _ in range(3)]
    assert [job.name if job else None for job in mine] == [here.name, whole.name, None]


@every_board
def test_posting_twice_makes_one_job(place: Place) -> None:
    board, other = place.open(), place.open()
    one = posting()
    assert board.post(one) == other.post(one)
    assert len(board.jobs()) == 1


@every_board
def test_what_is_posted_while_it_is_worked_on_waits_again_after_that(place: Place) -> None:
    board = place.open()
    one = posting()
    board.post(one)
    job = claim(board)
    board.post(one)
    board.post(one)
    assert [found.state for found in board.jobs()] == [CLAIMED]
    assert board.extend(job, 60)
    assert board.finish(job)
    again = claim(board, "b")
    assert (again.name, again.attempts) == (one.name, 1)
    assert board.finish(again)
    assert board.jobs() == []


@every_board
def test_a_job_given_back_without_an_error_has_lost_no_attempt(place: Place) -> None:
    board = place.open(max_attempts=2)
    board.post(posting())
    for _ in range(4):
        job = claim(board)
        assert job.attempts == 1
        assert board.give_back(job)
        assert not board.give_back(job)


@every_board
def test_a_delayed_job_is_not_claimed_before_its_time_and_its_time_wakes_who_waits(place: Place) -> None:
    board = place.open()
    board.post(posting())
    began = time.monotonic()
    assert board.give_back(claim(board), delay=0.6)
    assert board.claim([OPERATIONS], "b", 60) is None
    assert [job.state for job in board.jobs()] == [READY]
    assert board.wait([OPERATIONS], 10)
    assert claim(board, "b").owner == "b"
    assert 0.55 <= time.monotonic() - began < 5


@every_board
def test_after_its_last_failed_attempt_a_job_is_parked_visibly_until_it_is_unparked(place: Place) -> None:
    board = place.open(max_attempts=2)
    job_id = board.post(posting())
    for number in (1, 2):
        job = claim(board)
        assert job.attempts == number
        assert board.give_back(job, error=f"failure {number}")
    assert board.claim([OPERATIONS], "a", 60) is None
    assert [(job.state, job.error, job.owner) for job in board.jobs()] == [(PARKED, "failure 2", None)]
    assert not board.unpark("nothing")
    assert board.unpark(job_id)
    assert not board.unpark(job_id)
    assert claim(board).attempts == 1


@every_board
def test_a_parked_job_is_not_posted_a_second_time(place: Place) -> None:
    board = place.open()
    one = posting()
    board.post(one)
    assert board.park(claim(board), "no such flow")
    board.post(one)
    assert board.claim([OPERATIONS], "a", 60) is None
    assert [(job.state, job.error) for job in board.jobs()] == [(PARKED, "no such flow")]


@every_board
def test_parked_jobs_come_last_and_lists_are_by_topic_and_limited(place: Place) -> None:
    board = place.open()
    one, two, three = posting(), posting(), posting("host.h1")
    for each in (one, two, three):
        board.post(each)
    board.park(claim(board), "reason")
    assert [job.name for job in board.jobs()] == [two.name, three.name, one.name]
    assert [job.name for job in board.jobs(OPERATIONS)] == [two.name, one.name]
    assert [job.name for job in board.jobs(limit=1)] == [two.name]
    assert board.jobs("host.unknown") == []


# -- owners -----------------------------------------------------------------------------------------------------------


@every_board
def test_a_lease_that_was_not_extended_is_taken_over_and_the_former_owner_can_do_nothing(place: Place) -> None:
    board, other = place.open(), place.open()
    board.post(posting())
    job = claim(board, lease=LEASE)
    taken = taken_over(other, "b")
    assert taken is not None
    assert (taken.id, taken.owner, taken.attempts) == (job.id, "b", 2)
    assert not board.extend(job, 60)
    assert not board.finish(job)
    assert not board.give_back(job)
    assert not board.park(job, "mine")
    assert other.extend(taken, 60)
    assert other.finish(taken)


@every_board
def test_a_lease_that_is_extended_is_kept(place: Place) -> None:
    board, other = place.open(), place.open()
    board.post(posting())
    job = claim(board, lease=LEASE)
    assert board.extend(job, 60)
    assert not other.wait([OPERATIONS], LEASE + 0.5)
    assert other.claim([OPERATIONS], "b", 60) is None
    assert board.finish(job)


@every_board
def test_jobs_of_a_killed_process_and_of_a_paused_one_are_taken_over_and_the_paused_one_learns_it(place: Place) -> None:
    board = place.open()
    for _ in range(2):
        board.post(posting())
    with place.process("hold", str(LEASE)) as killed, place.process("hold", str(LEASE)) as paused:
        assert [said(worker) for worker in (killed, paused)] == ["claimed", "claimed"]
        killed.kill()
        paused.send_signal(signal.SIGSTOP)
        taken = [taken_over(board, "b") for _ in range(2)]
        assert [job and job.attempts for job in taken] == [2, 2]
        paused.send_signal(signal.SIGCONT)
        tell(paused)
        assert said(paused) == "lost"
    assert all(board.finish(job) for job in taken if job)


@every_board
def test_a_job_that_costs_its_workers_their_lives_is_parked(place: Place) -> None:
    board, other = place.open(max_attempts=1), place.open(max_attempts=1)
    board.post(posting())
    claim(board, "worker 1", lease=LEASE)
    deadline = time.monotonic() + _TAKEOVER
    while [job.state for job in other.jobs()] != [PARKED] and time.monotonic() < deadline:
        assert other.claim([OPERATIONS], "b", 60) is None
        time.sleep(0.1)
    (job,) = other.jobs()
    assert (job.state, job.attempts) == (PARKED, 1)
    assert job.error


@every_board
def test_a_released_job_is_claimed_by_others(place: Place) -> None:
    board, other = place.open(), place.open()
    job_id = board.post(posting())
    assert not board.release(job_id)
    job = claim(board)
    assert other.release(job_id)
    assert not other.release(job_id)
    assert not board.extend(job, 60)
    assert claim(other, "b").claim > job.claim


@every_board
def test_an_owner_that_claims_a_second_time_does_not_hold_by_its_first_claim(place: Place) -> None:
    board = place.open()
    job_id = board.post(posting())
    first = claim(board)
    board.release(job_id)
    second = claim(board)
    assert first.owner == second.owner
    assert not board.finish(first)
    assert board.finish(second)


@every_board
def test_processes_that_claim_at_the_same_time_never_get_the_same_job(place: Place) -> None:
    board = place.open()
    wanted = [posting() for _ in range(60)]
    for one in wanted:
        board.post(one)
    workers = [place.process("drain", str(number)) for number in range(3)]
    assert [said(worker) for worker in workers] == ["ready"] * 3
    for worker in workers:
        tell(worker)
    outputs = [worker.communicate(timeout=60) for worker in workers]
    got = [name for output, _ in outputs for name in output.split()]
    assert sorted(got) == sorted(one.name for one in wanted)
    assert board.jobs() == []


@every_board
def test_threads_that_claim_at_the_same_time_never_get_the_same_job(place: Place) -> None:
    board = place.open()
    wanted = [posting() for _ in range(40)]
    for one in wanted:
        board.post(one)
    got: list[str] = []

    def drain() -> None:
        while job := board.claim([OPERATIONS], "a", 60):
            got.append(job.name)
            board.finish(job)

    threads = [threading.Thread(target=drain) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(one.name for one in wanted)


# -- waiting ----------------------------------------------------------------------------------------------------------


@every_board
def test_waiting_ends_with_a_posting_of_its_topics_and_costs_nothing_until_then(place: Place) -> None:
    board, other = place.open(), place.open()
    assert not board.wait([OPERATIONS], 0.3)
    began, cpu = time.monotonic(), time.process_time()
    posts = [threading.Timer(0.5, other.post, [posting("host.h2")]), threading.Timer(1.5, other.post, [posting()])]
    for post in posts:
        post.start()
    assert board.wait(["host.h1", OPERATIONS], 20)
    assert 1.4 < time.monotonic() - began < 10
    assert time.process_time() - cpu < 0.7
    for post in posts:
        post.join()


@every_board
def test_waiting_ends_at_once_when_there_is_something_or_the_board_is_closed(place: Place) -> None:
    board, other = place.open(), place.open()
    board.post(posting())
    assert board.wait([OPERATIONS], 20)
    claim(board)
    began = time.monotonic()
    closing = threading.Timer(0.3, other.close)
    closing.start()
    assert not other.wait([OPERATIONS], 30)
    assert time.monotonic() - began < 10
    closing.join()


# -- servers that fail ------------------------------------------------------------------------------------------------


@every_server
def test_jobs_and_claims_survive_a_server_that_is_killed_and_restarted(place: Place) -> None:
    assert place.server is not None
    board, other = place.open(), place.open()
    held, waiting = posting(), posting()
    board.post(held)
    job = claim(board)
    board.post(waiting)
    assert not other.wait(["host.h1"], 0.1)
    place.server.kill()
    place.server.start()
    assert board.extend(job, 60)
    assert [found.state for found in other.jobs()] == [CLAIMED, READY]
    assert other.wait([OPERATIONS], 10)
    taken = claim(other, "b")
    assert taken.name == waiting.name
    assert board.finish(job)
    assert other.finish(taken)
    news = threading.Timer(0.5, board.post, [posting("host.h1")])
    news.start()
    assert other.wait(["host.h1"], 20)
    news.join()


@every_server
def test_a_server_that_lost_its_data_is_an_empty_board_to_which_can_be_posted(place: Place) -> None:
    assert place.server is not None
    board, other = place.open(), place.open()
    one = posting()
    for each in (one, posting(), posting("host.h1")):
        board.post(each)
    job = claim(board)
    assert not other.wait(["host.h2"], 0.1)
    place.server.kill()
    place.server.wipe()
    place.server.start()
    assert not board.extend(job, 60)
    assert other.jobs() == []
    assert board.claim([OPERATIONS], "a", 60) is None
    assert not board.finish(job)
    news = threading.Timer(0.5, board.post, [one])
    news.start()
    assert other.wait([OPERATIONS], 20)
    news.join()
    assert claim(other, "b").attempts == 1
    assert not board.extend(job, 60)


@every_server
def test_a_server_that_is_gone_is_named_without_its_password(
    place: Place, monkeypatch: pytest.MonkeyPatch, unused_url: str
) -> None:
    monkeypatch.setattr(stored_board, "PATIENCE", 0.3)
    password = "" if place.kind == "etcd" else "virtflow:secret-word@"
    board = place.open(url=unused_url.replace("://", f"://{password}"))
    for ask in (lambda: board.post(posting()), lambda: board.wait([OPERATIONS], 5), board.jobs):
        with pytest.raises(BoardUnreachable, match=f"cannot reach job board {place.kind}://127.0.0.1:1") as caught:
            ask()
        assert "secret-word" not in str(caught.value)


@pytest.fixture
def unused_url(place: Place) -> str:
    return f"{place.kind}://127.0.0.1:1"


# -- others who write to the server -----------------------------------------------------------------------------------


@every_server
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\x00nonsense",
        b"[]",
        b"{" * 2000,
        json.dumps({"details": {"operation": "os.system", "segment": None}}).encode(),
        "other operation",
        "store values",
    ],
    ids=["empty", "binary", "list", "deep", "incomplete", "other-operation", "store-values"],
)
def test_a_record_that_virtflow_did_not_write_is_parked_and_never_claimed(place: Place, content: bytes | str) -> None:
    board = place.open()
    one, good = posting(), posting()
    job_id = board.post(one)
    board.post(good)
    record = _Records(place)
    if isinstance(content, str):
        changed = json.loads(record.read(job_id))
        details = changed["details"]
        details |= {"operation": str(uuid.uuid4())} if content == "other operation" else {"store": {"x": 1}}
        content = json.dumps(changed).encode()
    record.write(job_id, content)
    assert claim(board).name == good.name
    assert board.claim([OPERATIONS], "a", 60) is None
    (parked,) = [job for job in board.jobs() if job.id == job_id]
    assert (parked.state, parked.operation) == (PARKED, "")
    assert parked.error is not None
    assert "refused" in parked.error
    assert board.unpark(job_id)
    assert board.claim([OPERATIONS], "a", 60) is None
    assert [job.state for job in board.jobs() if job.id == job_id] == [PARKED]
    assert board.post(one) == job_id
    assert claim(board).name == one.name


@every_server
def test_entries_without_a_job_stop_nobody(place: Place) -> None:
    board = place.open()
    one = posting()
    board.post(one)
    records = _Records(place)
    for _ in range(20):
        records.plant_entry(f"2.{one.created_at:017d}.{uuid.uuid4()}")
        records.plant_entry(f"2.{one.created_at:017d} nonsense {uuid.uuid4()}")
        records.plant_entry(f"nonsense {uuid.uuid4()}")
    assert board.wait([OPERATIONS], 5)
    job = claim(board)
    assert len(board.jobs()) == 1
    assert board.finish(job)
    assert board.claim([OPERATIONS], "a", 60) is None


class _Records:
    """The server as somebody else uses it."""

    def __init__(self, place: Place) -> None:
        store: Any = place.opened[-1]._store  # type: ignore[attr-defined]
        self._kind, self._store, self._namespace = place.kind, store, place.config.jobboard.namespace

    def read(self, job_id: str) -> bytes:
        if self._kind == "redis":
            return self._store._client.get(self._store._record(job_id))
        if self._kind == "etcd":
            return self._store._client.get(self._store._record(job_id))[0]
        return self._store._session.client().get(self._store._path("jobs", job_id))[0]

    def write(self, job_id: str, content: bytes) -> None:
        if self._kind == "redis":
            self._store._client.set(self._store._record(job_id), content)
        elif self._kind == "etcd":
            self._store._client.put(self._store._record(job_id), content)
        else:
            self._store._session.client().set(self._store._path("jobs", job_id), content)

    def plant_entry(self, place: str) -> None:
        if self._kind == "redis":
            self._store._client.zadd(f"{self._store._prefix}READY:{OPERATIONS}", {place: 0})
        elif self._kind == "etcd":
            for kind in ("READY", "SECONDS", "SPANS"):
                self._store._client.put(f"{self._namespace}/at/{OPERATIONS}/{kind}/{place}", b"")
                self._store._client.put(f"{self._namespace}/at/{OPERATIONS}/{kind}/{place[:5]}", b"")
        else:
            beside = self._store._place(Entry(READY, OPERATIONS, next(self._store._waiting(OPERATIONS))))
            self._store._session.client().create(f"{beside.rpartition('/')[0]}/{place}")


@pytest.mark.must_run
@pytest.mark.parametrize("place", ["zookeeper"], indirect=True)
def test_with_a_password_nobody_else_reads_or_writes_jobs_on_zookeeper(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kazoo.exceptions import NoAuthError

    monkeypatch.setattr(stored_board, "PATIENCE", 0.3)
    assert place.server is not None
    with_password = place.server.url.replace("://", "://virtflow:pass%2Fword@") + "/cloud"
    board, other = place.open(url=with_password), place.open(url=with_password)
    job_id = board.post(posting())
    stranger = place.open(url=f"{place.server.url}/cloud")
    with pytest.raises(BoardUnreachable):
        stranger.jobs()
    with pytest.raises(NoAuthError):
        _Records(place).write(job_id, b"{}")
    assert claim(other).id == job_id
