"""By which clock it is judged whether somebody still lives."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from virtflow.persistence import clock as clock_module
from virtflow.persistence.clock import Clock

SECOND = 1_000_000


class Server:
    """Answers what time it is, ``ahead`` of us, after ``slow`` microseconds."""

    def __init__(self, tell_time: Callable[[int], None], ahead: int, slow: int = 0) -> None:
        self._pass, self._ahead, self._slow = tell_time, ahead, slow

    def execute(self, _question: str) -> None:
        self._pass(self._slow)

    def fetchone(self) -> tuple[int]:
        return (clock_module.now() + self._ahead,)


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Time that passes when it is told to."""
    moment = [1_800_000_000 * SECOND]
    monkeypatch.setattr(clock_module, "now", lambda: moment[0])

    def wait(microseconds: int) -> None:
        moment[0] += microseconds

    return wait


def test_the_servers_clock_is_reckoned_with_in_both_directions(passing: Callable[[int], None]) -> None:
    for ahead, words in ((3600 * SECOND, "3600.0 s behind"), (-90 * SECOND, "90.0 s ahead of")):
        clock = Clock("postgresql")
        clock.compare(Server(passing, ahead))
        assert clock.now() == clock_module.now() + ahead
        assert clock.in_words() == f"this host's clock is {words} the database's"


def test_a_difference_that_the_asking_may_have_made_is_none(passing: Callable[[int], None]) -> None:
    clock = Clock("mysql")
    clock.compare(Server(passing, SECOND, slow=2 * SECOND))
    assert clock.ahead == 0
    clock.compare(Server(passing, SECOND))
    assert clock.ahead == SECOND
    clock.compare(Server(passing, 50_000))
    assert clock.ahead == 0


def test_where_there_is_no_server_nobody_is_asked() -> None:
    clock = Clock("sqlite")
    clock.compare(None)
    assert clock.ahead == 0
