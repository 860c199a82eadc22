from __future__ import annotations

import socket
from collections.abc import Container, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from virtflow.engine.halted_guests import HaltedGuests
from virtflow.errors import DatabaseError
from virtflow.persistence.instances import GOING_ON
from virtflow.persistence.volumes import Attachment
from virtflow.volumes.driver import Connection


class Host:
    """One instance of this host, which is halted because of its volumes ``failed``, and reaches one of them by NBD."""

    def __init__(self, port: int) -> None:
        self.failed, self.mark, self.database_fails = {"v"}, None, False
        self.seen: list[str | None] = []
        nbd = Connection("nbd", address="127.0.0.1", port=port, target="volume-v").to_dict()
        self.attachments = [
            Attachment(id="a", volume="v", instance="i", host="here", operation="o", connection=nbd),
            Attachment(id="b", volume="w", instance="i", host="here", operation="o", connection={"kind": "file"}),
        ]

    def services(self) -> Mapping[str, Any]:
        return {
            "volume_attachments": SimpleNamespace(list=lambda **_given: self.attachments),
            "instances": SimpleNamespace(compare_and_set=self.compare_and_set),
            "guest_disks": SimpleNamespace(failed=lambda _domain: set(self.failed), let_go_on=self.let_go_on),
        }

    def compare_and_set(self, _uuid: str, expected: Mapping[str, Any], changes: Mapping[str, Any]) -> bool:
        if self.database_fails and expected["task_state"] == GOING_ON:
            raise DatabaseError(url="sqlite://", reason="it is away")
        if expected["task_state"] != self.mark:
            return False
        self.mark = changes["task_state"]
        return True

    def let_go_on(self, _domain: str, serials: Container[str]) -> bool:
        self.seen.append(self.mark)
        assert all(serial in serials for serial in self.failed)
        self.failed = set()
        return True


@pytest.fixture
def host() -> Iterator[Host]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Host(server.getsockname()[1])


def test_a_guest_whose_server_answers_goes_on_and_nobody_begins_anything_with_it_meanwhile(host: Host) -> None:
    assert HaltedGuests(host.services(), "here").let_go_on() == ["i"]
    assert (host.seen, host.mark) == ([GOING_ON], None)


def test_a_guest_that_runs_is_left_alone(host: Host) -> None:
    host.failed = set()
    assert (HaltedGuests(host.services(), "here").let_go_on(), host.seen) == ([], [])


def test_a_guest_that_is_halted_because_of_another_disk_as_well_stays_so(host: Host) -> None:
    host.failed = {"v", "w"}
    assert (HaltedGuests(host.services(), "here").let_go_on(), host.seen) == ([], [])


def test_a_guest_whose_server_does_not_answer_stays_halted_and_that_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    host = Host(port)
    assert (HaltedGuests(host.services(), "here").let_go_on(), host.seen) == ([], [])
    assert "instance i does not go on: " in caplog.text


def test_a_guest_at_which_an_operation_is_at_work_stays_halted(host: Host) -> None:
    host.mark = "HALTING/o"
    assert (HaltedGuests(host.services(), "here").let_go_on(), host.seen, host.mark) == ([], [], "HALTING/o")


def test_a_mark_that_could_not_be_taken_away_is_taken_away_next_time(host: Host) -> None:
    halted = HaltedGuests(host.services(), "here")
    halted.let_go_on()
    host.failed, host.database_fails = {"v"}, True
    assert halted.let_go_on() == []
    assert host.mark == GOING_ON
    host.database_fails = False
    assert halted.let_go_on() == []
    assert host.mark is None


def test_the_mark_of_a_worker_that_was_killed_is_taken_away(host: Host) -> None:
    host.failed, host.mark = set(), GOING_ON
    HaltedGuests(host.services(), "here").let_go_on()
    assert host.mark is None
