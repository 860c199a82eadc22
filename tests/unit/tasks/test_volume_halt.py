"""The guest that has a volume is halted and let go on, by one operation at a time."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from virtflow.errors import VolumeError
from virtflow.tasks.volume_halt import LetGuestRun, PauseGuest, RecordGuestState

BY_FILE: dict[str, Any] = {"instance": "i1", "connection": {"kind": "file"}}


class Guest:
    """Stands for the hypervisor."""

    def __init__(self, state: str) -> None:
        self.current = state

    def state(self, _uuid: str) -> str:
        return self.current

    def suspend(self, _uuid: str) -> None:
        self.current = "paused"

    def resume(self, _uuid: str) -> None:
        self.current = "running"


@pytest.fixture
def by_iscsi() -> Iterator[dict[str, Any]]:
    """From a server that answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address, port = server.getsockname()
        yield {"instance": "i1", "connection": {"kind": "iscsi", "address": address, "port": port}}


def run(guest: Guest, attachment: dict[str, Any] | None, *, served: bool = True) -> tuple[bool, bool]:
    ran = RecordGuestState(served=served).execute(attachment, guest)
    return ran, PauseGuest().execute(attachment, ran, guest)


def test_a_running_guest_is_halted_and_goes_on_when_that_is_taken_back(by_iscsi: dict[str, Any]) -> None:
    guest = Guest("running")
    assert run(guest, by_iscsi) == (True, True)
    assert guest.current == "paused"
    assert list(PauseGuest().intents(by_iscsi, True))
    PauseGuest().revert(attachment=by_iscsi, guest_ran=True, hypervisor=guest, result=None, flow_failures={})
    assert guest.current == "running"


def test_a_guest_that_somebody_else_has_halted_stays_so(by_iscsi: dict[str, Any]) -> None:
    guest = Guest("paused")
    assert run(guest, by_iscsi) == (False, False)
    assert not list(PauseGuest().intents(by_iscsi, False))
    PauseGuest().revert(attachment=by_iscsi, guest_ran=False, hypervisor=guest, result=False, flow_failures={})
    assert guest.current == "paused"


def test_a_guest_whose_writes_nobody_answers_is_not_halted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address, port = server.getsockname()
    guest = Guest("running")
    with pytest.raises(VolumeError, match=f"{address}, port {port}, does not answer"):
        run(guest, {"instance": "i1", "connection": {"kind": "iscsi", "address": address, "port": port}})
    assert guest.current == "running"


@pytest.mark.parametrize("attachment", [None, BY_FILE], ids=["attached to none", "by a file"])
def test_nobody_is_halted_for_a_volume_that_no_server_gives_away(attachment: dict[str, Any] | None) -> None:
    guest = Guest("running")
    assert run(guest, attachment) == (False, False)
    assert guest.current == "running"


def test_for_a_snapshot_a_guest_is_halted_however_it_reaches_the_volume_and_goes_on_afterwards() -> None:
    guest = Guest("running")
    assert run(guest, BY_FILE, served=False) == (True, True)
    for _ in range(2):
        LetGuestRun().execute(BY_FILE, True, guest)
        assert guest.current == "running"
    guest.current = "paused"
    LetGuestRun().execute(BY_FILE, False, guest)
    assert guest.current == "paused", "it was not halted for this"
    LetGuestRun().execute(None, False, guest)
