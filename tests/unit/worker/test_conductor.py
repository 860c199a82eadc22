"""Jobs are taken and done, and whatever comes of one, the board is told the right thing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from virtflow.errors import BoardUnreachable, Busy, DatabaseError, NotFound, StaleEpoch, UnknownFlow
from virtflow.persistence.posting import OPERATIONS, JobRecord
from virtflow.worker.conductor import Conductor, Done, Later, Verdict
from virtflow.worker.leases import Leases
from virtflow.worker.metrics import Metrics

LEASE = 0.06


def job(number: int = 1, attempts: int = 1) -> JobRecord:
    return JobRecord(
        f"j{number}", f"j{number}", OPERATIONS, "op", None, "CLAIMED", "me", attempts, 0, 0, 0, "normal", None
    )


class Board:
    """Hands out jobs, and keeps what it is told."""

    def __init__(self, *jobs: JobRecord, failing: Sequence[Exception] = ()) -> None:
        self.jobs = list(jobs)
        self.failing = list(failing)
        self.told: list[tuple[Any, ...]] = []
        self.extended: list[str] = []
        self.lost = False
        self._closed = threading.Event()

    def claim(self, _topics: Sequence[str], _owner: str, _lease: float) -> JobRecord | None:
        if self.failing:
            raise self.failing.pop(0)
        return self.jobs.pop(0) if self.jobs else None

    def extend(self, held: JobRecord, _lease: float) -> bool:
        self.extended.append(held.id)
        return not self.lost

    def finish(self, held: JobRecord) -> bool:
        self.told.append(("finish", held.id))
        return True

    def give_back(self, held: JobRecord, delay: float = 0.0, error: str | None = None) -> bool:
        self.told.append(("give back", held.id, delay, error))
        return True

    def wait(self, _topics: Sequence[str], timeout: float) -> bool:
        return self._closed.wait(min(timeout, 0.01))

    def close(self) -> None:
        self._closed.set()


Run = Callable[..., Board]


@pytest.fixture
def run() -> Iterator[Run]:
    """Have a conductor do what is on a board, with this work, until something was told of it."""
    running: list[tuple[Conductor, Board]] = []

    def conduct(board: Board, work: Callable[[JobRecord], Verdict], told: int = 1, threads: int = 2) -> Board:
        options: dict[str, Any] = {"owner": "me", "lease": LEASE, "threads": threads, "metrics": Metrics()}
        conductor = Conductor(OPERATIONS, board, work, **options)  # type: ignore[arg-type]
        running.append((conductor, board))
        conductor.start()
        until(lambda: len(board.told) >= told)
        return board

    yield conduct
    for conductor, board in running:
        conductor.stop()
        conductor.finish()
        board.close()
        conductor.join()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def raising(error: Exception) -> Callable[[JobRecord], Verdict]:
    def work(_job: JobRecord) -> Verdict:
        raise error

    return work


def test_a_job_that_is_done_is_off_the_board(run: Run) -> None:
    assert run(Board(job()), lambda _job: Done()).told == [("finish", "j1")]


def test_a_job_for_later_is_back_on_the_board_with_its_delay_and_reason(run: Run) -> None:
    assert run(Board(job()), lambda _job: Later(2.5, "why")).told == [("give back", "j1", 2.5, "why")]


@pytest.mark.parametrize(
    "error",
    [NotFound(kind="operation", name="op"), StaleEpoch(operation="op", epoch=1)],
    ids=["about nothing", "taken over"],
)
def test_a_job_that_is_nobodys_business_here_any_more_is_off_the_board(run: Run, error: Exception) -> None:
    assert run(Board(job()), raising(error)).told == [("finish", "j1")]


@pytest.mark.parametrize(
    "error",
    [DatabaseError(url="db", reason="away"), UnknownFlow(kind="spawn", version=9), RuntimeError("a bug")],
    ids=["no database", "no code", "a bug"],
)
def test_a_job_that_could_not_be_done_counts_as_an_attempt_with_its_error(run: Run, error: Exception) -> None:
    ((verb, name, delay, told),) = run(Board(job(attempts=2)), raising(error)).told
    assert (verb, name) == ("give back", "j1")
    assert delay > 0
    assert str(error) in told


@pytest.mark.parametrize("error", [BoardUnreachable(url="b", reason="away"), TimeoutError("pool")], ids=["away", "bug"])
def test_a_board_that_fails_once_does_not_end_the_conductor(
    run: Run, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("virtflow.worker.conductor._AWAY", 0.01)
    board = run(Board(job(1), job(2), failing=[error]), lambda _job: Done(), told=2, threads=1)
    assert sorted(board.told) == [("finish", "j1"), ("finish", "j2")]


def test_no_more_jobs_are_taken_than_there_are_threads(run: Run) -> None:
    at_once, most, go = [0], [0], threading.Event()

    def work(_job: JobRecord) -> Verdict:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        go.wait(0.05)
        at_once[0] -= 1
        return Done()

    run(Board(*map(job, range(6))), work, told=6, threads=2)
    assert most[0] <= 2


def test_a_job_is_held_as_long_as_it_is_worked_on_and_no_longer(run: Run) -> None:
    board = Board(job())

    def work(_job: JobRecord) -> Verdict:
        until(lambda: len(board.extended) >= 3)
        return Done()

    run(board, work)
    held = len(board.extended)
    time.sleep(2 * LEASE)
    assert len(board.extended) <= held + 1


def test_losing_a_job_is_told_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    board = Board()
    board.lost = True
    leases = Leases(board, LEASE)  # type: ignore[arg-type]
    with leases.holding(job()):
        until(lambda: "was taken by another worker" in caplog.text)
    leases.close()


def test_what_is_busy_is_tried_again_without_counting(run: Run) -> None:
    from virtflow.worker.conductor import operation_work

    class Runner:
        draining = False

        def carry_on(self, _operation: str) -> None:
            raise Busy(target="instance:a", operation="another", operation_kind="spawn")

    ((_verb, _name, delay, error),) = run(Board(job()), operation_work(Runner())).told  # type: ignore[arg-type]
    assert (delay > 0, error) == (True, None)
