"""Fault points: how they are written, and when they happen."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from virtflow import faults
from virtflow.errors import InvalidRequest
from virtflow.faults import InjectedFault, injected, parse


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Signals that this thread would have sent to itself."""
    sent: list[int] = []

    def kill(thread: int, number: int) -> None:
        assert thread == threading.get_ident()
        sent.append(number)

    monkeypatch.setattr(signal, "pthread_kill", kill)
    return sent


def test_without_a_specification_there_are_no_fault_points() -> None:
    assert parse("") is None
    assert parse(" ; ") is None
    assert faults.active is None


@pytest.mark.parametrize(
    "text",
    [
        "DefineDomain",
        "DefineDomain:during:raise",
        "DefineDomain:before:explode",
        "DefineDomain:before:sleep",
        "DefineDomain:before:sleep=x",
        "DefineDomain:before:hold=",
        "DefineDomain:before:hold=gate",
        "DefineDomain:before:raise:-1",
        "write:x:kill",
        "write:3:raise",
        "write:3:during:kill",
        "a b:before:raise",
        "DefineDomain.execute:before:raise",
    ],
)
def test_what_cannot_be_read_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidRequest, match="VIRTFLOW_FAULT") as error:
        parse(f"Good:before:raise;{text}")
    assert text in str(error.value)


def test_a_hold_lasts_as_long_as_its_file_is_there_and_counts_as_any_fault(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with injected(f"DefineDomain:before:hold={gate}:2") as points:
        assert points is not None
        assert not points.hit("DefineDomain", "before")  # no file: no wait
        gate.touch()
        waiting = threading.Thread(target=points.hit, args=("DefineDomain", "before"))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        gate.unlink()
        waiting.join(30)
        assert not waiting.is_alive()
        gate.touch()
        points.hit("DefineDomain", "before")  # the third time it does not happen


def test_a_fault_happens_at_its_point_and_side_and_once() -> None:
    with injected("DefineDomain:after:raise") as points:
        assert points is not None
        points.hit("DefineDomain", "before")
        points.hit("DefineDomain.revert", "after")
        points.hit("StartDomain", "after")
        assert points.unreached() == ["DefineDomain"]
        with pytest.raises(InjectedFault, match="injected fault after DefineDomain"):
            points.hit("DefineDomain", "after")
        points.hit("DefineDomain", "after")
        assert points.unreached() == []
    assert faults.active is None


@pytest.mark.parametrize(("count", "times"), [("2", 2), ("*", 5)])
def test_a_fault_happens_as_often_as_it_says(count: str, times: int) -> None:
    with injected(f"A.revert:before:raise:{count}") as points:
        assert points is not None
        happened = 0
        for _ in range(5):
            try:
                points.hit("A.revert", "before")
            except InjectedFault:
                happened += 1
        assert happened == times


def test_kill_and_stop_are_signals_to_the_own_process(kills: list[int]) -> None:
    with injected("A:before:kill;B:after:stop") as points:
        assert points is not None
        points.hit("A", "before")
        points.hit("B", "after")
    assert kills == [signal.SIGKILL, signal.SIGSTOP]


def test_repeat_asks_for_the_body_once_more() -> None:
    with injected("A:before:repeat") as points:
        assert points is not None
        assert points.hit("A", "before")
        assert not points.hit("A", "before")


def test_sleep_takes_its_time() -> None:
    with injected("A:before:sleep=0.05") as points:
        assert points is not None
        started = time.monotonic()
        points.hit("A", "before")
        assert time.monotonic() - started >= 0.05


def test_several_faults_are_separated_by_semicolons() -> None:
    with injected("A:before:raise; B.revert:after:raise ;write:3:kill") as points:
        assert points is not None
        assert points.unreached() == ["A", "B.revert", "write 3"]


@pytest.mark.parametrize(("text", "when"), [("write:2:kill", "before"), ("write:2:after:kill", "after")])
def test_writes_are_counted_and_killed_before_or_after(text: str, when: str, kills: list[int]) -> None:
    with injected(text) as points:
        assert points is not None
        first = points.before_write()
        points.after_write(first)
        assert kills == []
        second = points.before_write()
        assert len(kills) == (when == "before")
        points.after_write(second)
        assert len(kills) == 1
        assert points.writes == 2


def test_writes_of_several_threads_keep_their_numbers(kills: list[int]) -> None:
    """The after of the first comes after the before of the second: it is still the first's."""
    with injected("write:1:after:kill") as points:
        assert points is not None
        first, second = points.before_write(), points.before_write()
        points.after_write(second)
        assert kills == []
        points.after_write(first)
        assert kills == [signal.SIGKILL]


def test_two_threads_share_one_count() -> None:
    happened: list[int] = []
    with injected("A:before:raise:5") as points:
        assert points is not None

        def hit() -> None:
            for _ in range(10):
                try:
                    points.hit("A", "before")
                except InjectedFault:
                    happened.append(1)

        threads = [threading.Thread(target=hit) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(happened) == 5


def test_the_environment_is_read_once_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "active", None)
    monkeypatch.setenv("VIRTFLOW_FAULT", "A:before:raise")
    faults.read_environment()
    read: Any = faults.active
    assert read.unreached() == ["A"]
    monkeypatch.setenv("VIRTFLOW_FAULT", "")
    faults.read_environment()
    assert faults.active is None
