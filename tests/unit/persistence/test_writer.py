"""Threads that write at the same time share a transaction, and only that."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from virtflow.errors import DatabaseError
from virtflow.persistence.database import Database
from virtflow.persistence.models.engine import logbooks
from virtflow.persistence.writer import Batch, Writer


class HeldWriter(Writer):
    """Waits before each transaction until it may go on, and remembers how many batches each had."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.go_on = threading.Event()
        self.sizes: list[int] = []
        self.before_sending: Callable[[], None] = lambda: None

    def _transact(self, batches: list[Batch]) -> None:
        self.sizes.append(len(batches))
        assert self.go_on.wait(10)
        self.before_sending()
        super()._transact(batches)


@pytest.fixture
def writer(database: Database) -> Iterator[HeldWriter]:
    held = HeldWriter(database)
    yield held
    held.close()


def a_row(writer: Writer, uuid: str) -> Batch:
    statement = writer.compile(sa.insert(logbooks).values({"uuid": sa.bindparam("uuid")}))
    return [(statement, (uuid,))]


def rows(database: Database) -> set[str]:
    with database.connect() as connection:
        return set(connection.execute(sa.select(logbooks.c.uuid)).scalars())


def in_threads(writer: HeldWriter, uuids: list[str]) -> tuple[list[threading.Thread], dict[str, Any]]:
    """One that commits and is held there, then the others, which queue behind it."""
    outcomes: dict[str, Any] = {}

    def write(uuid: str) -> None:
        try:
            writer.write(a_row(writer, uuid))
            outcomes[uuid] = "written"
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            outcomes[uuid] = error

    threads = [threading.Thread(target=write, args=(uuid,)) for uuid in uuids]
    for number, thread in enumerate(threads):
        thread.start()
        if number == 0:
            until(lambda: bool(writer.sizes))
        else:
            until(lambda: len(writer._queue) == number)  # noqa: B023 - called at once
    return threads, outcomes


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def finish(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_all_that_queued_during_a_commit_share_the_next(writer: HeldWriter, database: Database) -> None:
    uuids = list("abcdefgh")
    threads, outcomes = in_threads(writer, uuids)
    writer.go_on.set()
    finish(threads)
    assert writer.sizes == [1, 7]
    assert outcomes == dict.fromkeys(uuids, "written")
    assert rows(database) == set(uuids)


def test_one_that_is_refused_takes_nobody_along(writer: HeldWriter, database: Database) -> None:
    threads, outcomes = in_threads(writer, ["a", "b", "a", "c"])
    writer.go_on.set()
    finish(threads)
    assert "UNIQUE" in str(outcomes.pop("a"))
    assert outcomes == {"b": "written", "c": "written"}
    assert rows(database) == {"a", "b", "c"}


def test_company_that_stays_away_is_not_waited_for_long(writer: HeldWriter, database: Database) -> None:
    writer.go_on.set()
    writer._pace, writer._company = 0.01, 8
    threads, _outcomes = in_threads(writer, ["a"])
    finish(threads)
    assert rows(database) == {"a"}
    assert writer._company == 1


def test_the_last_of_the_company_commits_for_all(writer: HeldWriter) -> None:
    writer.go_on.set()
    writer._pace, writer._company = 1000.0, 3
    threads = [threading.Thread(target=writer.write, args=(a_row(writer, uuid),)) for uuid in "abc"]
    for thread in threads:
        thread.start()
    finish(threads)
    assert writer.sizes == [3]


def test_an_interrupted_commit_leaves_nobody_waiting(writer: HeldWriter, database: Database) -> None:
    def interrupt() -> None:
        writer.before_sending = lambda: None
        raise KeyboardInterrupt

    writer.before_sending = interrupt
    threads, outcomes = in_threads(writer, ["a", "b", "c"])
    writer.go_on.set()
    finish(threads)
    assert isinstance(outcomes["a"], KeyboardInterrupt)
    assert rows(database) == {"b", "c"}


def test_who_shares_an_interrupted_commit_is_told(writer: HeldWriter) -> None:
    interrupted = iter([None, KeyboardInterrupt])

    def interrupt() -> None:
        if error := next(interrupted, None):
            raise error

    writer.before_sending = interrupt
    threads, outcomes = in_threads(writer, ["a", "b", "c"])
    writer.go_on.set()
    finish(threads)
    assert outcomes["a"] == "written"
    assert {type(outcomes[uuid]) for uuid in "bc"} == {KeyboardInterrupt, DatabaseError}
