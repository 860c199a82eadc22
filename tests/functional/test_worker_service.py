"""What a worker says to systemd, on a real notification socket, from its start to its end."""

from __future__ import annotations

import array
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(180)]

_CREDENTIALS = struct.Struct("3i")


class Manager:
    """The end of the socket that systemd has: whole messages, each with the process that sent it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.settimeout(90)

    def close(self) -> None:
        self._socket.close()

    def message(self) -> tuple[int, list[str]]:
        data, others, _flags, _address = self._socket.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
        ((_level, _kind, sent),) = others
        return _CREDENTIALS.unpack(array.array("B", sent).tobytes())[0], data.decode().split("\n")

    def until(self, line: str) -> list[tuple[int, list[str]]]:
        """Everything up to the message with that line."""
        got = [self.message()]
        while line not in got[-1][1]:
            got.append(self.message())
        return got


@contextmanager
def worker(manager: Manager, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    settings = {"DEFAULT.state_dir": directory, "libvirt.virt_type": "qemu", "engine.mode": "workers"}
    given = [f"--set={name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-P", "-m", "virtflow.cli.main", *given, "worker", "--topics", "operations"]
    environment = os.environ | {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "30000000"}
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def manager(short_tmp_path: Path) -> Iterator[Manager]:
    here = Manager(short_tmp_path / "notify")
    yield here
    here.close()


def test_systemd_hears_of_readiness_life_reload_and_end_from_the_main_process(
    manager: Manager, short_tmp_path: Path
) -> None:
    with worker(manager, short_tmp_path) as process:
        starting = manager.until("READY=1")
        # Before it is ready, it asks for time: a host may owe much that comes before new work.
        assert all(lines[0] == "WATCHDOG=1" and lines[1].startswith("EXTEND_TIMEOUT") for _pid, lines in starting[:-1])
        alive = manager.until("WATCHDOG=1") + manager.until("WATCHDOG=1")
        process.send_signal(signal.SIGHUP)
        reloading = manager.until("RELOADING=1")
        draining = manager.until("WATCHDOG_USEC=300000000")  # while Python is loaded anew, nothing is heard of it
        assert any("WATCHDOG=1" in lines for _pid, lines in draining), "draining, it must not be taken for dead"
        anew = manager.until("READY=1")
        assert "WATCHDOG_USEC=30000000" in anew[-1][1]
        process.send_signal(signal.SIGTERM)
        ending = manager.until("STOPPING=1")
        assert process.wait(60) == 0
        said = starting + alive + reloading + draining + anew + ending
        assert {pid for pid, _lines in said} == {process.pid}  # NotifyAccess=main
