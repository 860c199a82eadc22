"""A private tgtd: its own control port and a portal on loopback (or wherever the test wants it)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.lab.processes import alive, start, stop, wait_until
from tests.lab.servers import free_port

_SOCKETS = Path("/run/tgtd")
_CONTROLS = range(1, 32768)
_START_SECONDS = 30


def missing() -> str | None:
    return None if shutil.which("tgtd") and shutil.which("tgtadm") else "package tgt"


class Tgt:
    """Not running before ``start``. What it served is forgotten when it is killed."""

    def __init__(
        self,
        directory: Path,
        address: str = "127.0.0.1",
        within: Callable[[Sequence[str]], list[str]] = list,
    ) -> None:
        """``within`` turns its command into one that runs in another network."""
        self._within = within
        self.log = directory / "tgtd.log"
        self.address = address
        self.port = free_port()
        self.control = _free_control()
        self._pid: int | None = None

    @property
    def settings(self) -> dict[str, str]:
        """What the configuration of a backend's host says about it."""
        return {
            "volumes.export": "tgt",
            "volumes.export_address": self.address,
            "volumes.iscsi_port": str(self.port),
            "volumes.tgt_control": str(self.control),
        }

    def start(self, *, survive: bool = False) -> None:
        portal = f"portal={self.address}:{self.port}"
        command = self._within(["tgtd", "-f", "-C", str(self.control), "--iscsi", portal])
        pid = self._pid = start(command, self.log, survive=survive)
        if not wait_until(lambda: self._socket.exists() or not alive(pid), _START_SECONDS) or not alive(pid):
            raise RuntimeError(f"tgtd does not start: {self.log.read_text()[-2000:]}")

    def kill(self) -> None:
        """At once: it ignores SIGTERM as long as it has targets."""
        if self._pid is not None:
            stop(self._pid, polite=signal.SIGKILL)
            self._pid = None
        forget(self.control)

    def targets(self) -> list[str]:
        """The names of those that there are."""
        return [line.split(": ", 1)[1] for line in self._shown()]

    def remove(self, target: str) -> None:
        """By hand, under whoever is connected."""
        self._tgtadm("--op", "delete", "--mode", "target", "--tid", str(self.number(target)), "--force")

    def number(self, target: str) -> int:
        """By which tgtd knows it."""
        (number,) = [line.split()[1].rstrip(":") for line in self._shown() if line.endswith(f": {target}")]
        return int(number)

    def _shown(self) -> list[str]:
        listed = self._tgtadm("--op", "show", "--mode", "target").splitlines()
        return [line for line in listed if line.startswith("Target ")]

    def _tgtadm(self, *words: str) -> str:
        command = ["tgtadm", "-C", str(self.control), "--lld", "iscsi", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    @property
    def _socket(self) -> Path:
        return _socket(self.control)


def forget(control: int) -> None:
    """Remove what a daemon that was killed has left."""
    for path in (_socket(control), _socket(control).with_name(f"{_socket(control).name}.lock")):
        path.unlink(missing_ok=True)


def _socket(control: int) -> Path:
    return _SOCKETS / f"socket.{control}"


@contextmanager
def tgt(directory: Path, address: str = "127.0.0.1") -> Iterator[Tgt]:
    daemon = Tgt(directory, address)
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.kill()


def _free_control() -> int:
    offset = os.getpid() % len(_CONTROLS)
    for number in (*_CONTROLS[offset:], *_CONTROLS[:offset]):
        if not (_SOCKETS / f"socket.{number}").exists():
            return number
    raise RuntimeError("all control ports of tgtd are taken")
