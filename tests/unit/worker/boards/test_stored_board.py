"""The part of the boards that does not depend on the server, with a store in memory."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

import pytest

from virtflow.errors import BoardUnreachable, InvalidJob
from virtflow.persistence.posting import CLAIMED, READY, Posting
from virtflow.worker.boards import stored_board
from virtflow.worker.boards.news import News
from virtflow.worker.boards.stored_board import Kept, Look, StoredBoard
from virtflow.worker.boards.stored_job import DELAYED, StoredJob


class MemoryStore:
    """``before`` and ``after`` are called around each swap; what they raise is raised, the swap made or not."""

    unreachable = (ConnectionError,)
    url = "memory://"

    def __init__(self) -> None:
        self.news = News()
        self.kept: dict[str, Kept] = {}
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None
        self.reconnected = 0

    def read(self, job_id: str) -> Kept | None:
        return self.kept.get(job_id)

    def swap(self, old: Kept | None, new: StoredJob | None, lease: float | None = None) -> bool:
        self.before()
        one = old.job if old else new
        assert one is not None
        if self.kept.get(one.id) != old:
            return False
        if new is None:
            del self.kept[one.id]
        else:
            self.kept[one.id] = Kept(new, object())
        self.after()
        return True

    def look(self, topics: Sequence[str], width: int, lost: bool) -> Look:
        mine = [kept for kept in self.kept.values() if kept.job.topic in topics]
        ready = [kept for kept in mine if kept.entry.kind == READY]
        return Look(ready[:width], [kept for kept in mine if kept.entry.kind == DELAYED][:width])

    def listing(self, topic: str | None, limit: int) -> list[Kept]:
        return list(self.kept.values())

    def listen(self, topics: Sequence[str]) -> None:
        pass

    def reconnect(self) -> None:
        self.reconnected += 1

    def close(self) -> None:
        pass


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def board(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> StoredBoard:
    monkeypatch.setattr(stored_board, "PATIENCE", 0.2)
    return StoredBoard(store, max_attempts=3)


def posting() -> Posting:
    return Posting("operations", str(uuid.uuid4()))


def once(error: Exception) -> Callable[[], None]:
    """Raises it the first time."""
    left = [error]

    def act() -> None:
        if left:
            raise left.pop()

    return act


def test_a_write_whose_answer_was_lost_is_not_taken_for_somebody_elses(board: StoredBoard, store: MemoryStore) -> None:
    store.after = once(ConnectionError("lost"))
    board.post(posting())
    store.after = once(ConnectionError("lost"))
    job = board.claim(["operations"], "a", 15)
    assert job is not None
    assert job.attempts == 1
    store.after = once(ConnectionError("lost"))
    assert board.extend(job, 15)
    store.after = once(ConnectionError("lost"))
    assert board.finish(job)
    assert store.kept == {}
    assert store.reconnected == 4


def test_a_write_that_did_not_arrive_is_made_again(board: StoredBoard, store: MemoryStore) -> None:
    store.before = once(ConnectionError("refused"))
    board.post(posting())
    assert [job.state for job in board.jobs()] == [READY]


def test_a_server_that_stays_away_is_an_error_that_says_so(board: StoredBoard, store: MemoryStore) -> None:
    def refuse() -> None:
        raise ConnectionError("refused")

    store.before = refuse
    with pytest.raises(BoardUnreachable, match="cannot reach job board memory://: refused"):
        board.post(posting())


def test_who_is_too_slow_takes_the_next_job(board: StoredBoard, store: MemoryStore) -> None:
    first, second = (board.post(posting()) for _ in range(2))
    others = StoredBoard(store, max_attempts=3)

    def somebody_is_quicker() -> None:
        store.before = lambda: None
        assert others.claim(["operations"], "b", 15) is not None

    store.before = somebody_is_quicker
    job = board.claim(["operations"], "a", 15)
    assert job is not None
    assert {job.id} | {one.job.id for one in store.kept.values() if one.job.owner == "b"} == {first, second}


def test_news_that_come_while_a_job_is_finished_are_not_lost(board: StoredBoard, store: MemoryStore) -> None:
    one = posting()
    board.post(one)
    job = board.claim(["operations"], "a", 15)
    assert job is not None

    def posted_again() -> None:
        store.before = lambda: None
        StoredBoard(store, max_attempts=3).post(one)

    store.before = posted_again
    assert board.finish(job)
    assert [found.state for found in board.jobs()] == [READY]


def test_a_job_that_is_claimed_too_often_is_parked_when_it_is_looked_at(board: StoredBoard, store: MemoryStore) -> None:
    board.post(posting())
    job = board.claim(["operations"], "a", 15)
    assert job is not None
    board.release(job.id)
    strict = StoredBoard(store, max_attempts=1)
    assert strict.claim(["operations"], "a", 15) is None
    assert [found.error for found in strict.jobs()] == ["claimed too often without an end (attempts: 1)"]


def test_a_topic_that_is_none_is_refused(board: StoredBoard) -> None:
    with pytest.raises(InvalidJob):
        board.claim(["../jobs"], "a", 15)
    with pytest.raises(InvalidJob):
        board.wait(["*"], 1)


def test_what_is_claimed_is_seen_so(board: StoredBoard) -> None:
    board.post(posting())
    board.claim(["operations"], "a", 15)
    assert [(job.state, job.owner) for job in board.jobs()] == [(CLAIMED, "a")]
