"""The session against doubles: connections that break cannot be had from an embedded driver."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("libvirt", reason="needs libvirt-python")

from virtflow.errors import HypervisorUnreachable
from virtflow.hypervisor import session as session_module
from virtflow.hypervisor.binding import libvirt
from virtflow.hypervisor.session import Session, domain_error


class Connection:
    def __init__(self, alive: bool = True) -> None:
        self.alive = alive
        self.closed = 0

    def isAlive(self) -> bool:  # noqa: N802 - libvirt's name
        return self.alive

    def close(self) -> None:
        self.closed += 1


def failure(code: int, text: str = "no luck") -> Exception:
    error = libvirt.libvirtError("call failed")
    error.err = (code, libvirt.VIR_FROM_QEMU, text, 2, "", "", "", -1, -1)
    return error  # type: ignore[no-any-return]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """Every connection that was opened, in order."""
    connections: list[Connection] = []

    def open_connection(uri: str, *, embed_root: Path | None, wait_seconds: float) -> Connection:
        connections.append(Connection())
        return connections[-1]

    monkeypatch.setattr(session_module, "open_connection", open_connection)
    return connections


def failing(times: int, error: Callable[[], Exception], break_it: bool = False) -> Callable[[Connection], str]:
    left = [times]

    def call(connection: Connection) -> str:
        if left[0]:
            left[0] -= 1
            connection.alive = not break_it
            raise error()
        return "done"

    return call


def test_nothing_is_opened_before_the_first_call(opened: list[Connection]) -> None:
    session = Session("qemu:///x", None, 0)
    assert opened == []
    assert session.call(failing(0, lambda: failure(1))) == "done"
    assert len(opened) == 1


def test_a_broken_connection_is_replaced_and_the_call_made_again(opened: list[Connection]) -> None:
    session = Session("qemu:///x", None, 0)
    assert session.call(failing(1, lambda: failure(libvirt.VIR_ERR_INTERNAL_ERROR), break_it=True)) == "done"
    assert [connection.closed for connection in opened] == [1, 0]


def test_an_error_of_the_transport_counts_as_broken(opened: list[Connection]) -> None:
    session = Session("qemu:///x", None, 0)
    assert session.call(failing(1, lambda: failure(libvirt.VIR_ERR_RPC))) == "done"
    assert len(opened) == 2


def test_breaking_twice_in_one_call_means_unreachable(opened: list[Connection]) -> None:
    session = Session("qemu:///x", None, 0)
    with pytest.raises(HypervisorUnreachable, match="cannot reach libvirt at qemu:///x: client socket is closed"):
        session.call(failing(9, lambda: failure(libvirt.VIR_ERR_RPC, "client socket is closed")))
    assert [connection.closed for connection in opened] == [1, 1]
    assert session.call(failing(0, lambda: failure(1))) == "done"


def test_a_refusal_on_a_sound_connection_is_not_repeated(opened: list[Connection]) -> None:
    session = Session("qemu:///x", None, 0)
    with pytest.raises(libvirt.libvirtError):
        session.call(failing(1, lambda: failure(libvirt.VIR_ERR_SYSTEM_ERROR, "cannot access storage file")))
    assert [connection.closed for connection in opened] == [0]


def test_threads_that_break_together_share_one_new_connection(opened: list[Connection]) -> None:
    session = Session("qemu:///x", None, 0)
    all_in = threading.Barrier(4, timeout=10)
    results: list[str] = []

    def work() -> None:
        first = [True]

        def call(connection: Connection) -> str:
            if first:
                first.clear()
                all_in.wait()
                raise failure(libvirt.VIR_ERR_RPC)
            return "done"

        results.append(session.call(call))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert results == ["done"] * 4
    assert [connection.closed for connection in opened] == [1, 0]


def test_a_closed_session_opens_again(opened: list[Connection]) -> None:
    session = Session("qemu:///x", None, 0)
    session.call(failing(0, lambda: failure(1)))
    session.close()
    session.close()
    session.call(failing(0, lambda: failure(1)))
    assert [connection.closed for connection in opened] == [1, 0]


def test_libvirts_words_become_one_line_with_its_code() -> None:
    error = domain_error("start", "web-1", failure(38, "two\nlines"))
    assert str(error) == "cannot start domain web-1: two lines"
    assert error.code == 38
