"""What the lab's private servers share: a directory, a port on loopback, being killed, and coming back."""

from __future__ import annotations

import shutil
import signal
import socket
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tests.lab.processes import alive, start, stop, wait_until

_START_SECONDS = 30
_ATTEMPTS = 3


class Server(ABC):
    """A server of its own port and directory. Not running before ``start``."""

    name: str

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.log = directory / "log"
        self.port = 0
        self._pid: int | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """As ``[jobboard] url`` wants it."""

    @abstractmethod
    def command(self) -> list[str]:
        """What runs it in the foreground on ``port``, with its data in ``data``."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it serves."""

    def start(self) -> None:
        """Start it, on the port that it had before if there was one."""
        for _ in range(_ATTEMPTS):
            # Somebody may take the port between our look and the server's: that is why there are several attempts.
            port = self.port or free_port()
            self.port = port
            self.data.mkdir(exist_ok=True)
            pid = self._pid = start(self.command(), self.log)
            wait_until(lambda pid=pid: not alive(pid) or self.answers(), _START_SECONDS)
            if alive(pid):
                return
        raise RuntimeError(f"{self.name} does not start: {self.log.read_text()[-2000:]}")

    def kill(self) -> None:
        """It is gone, at once."""
        self.stop(signal.SIGKILL)

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> None:
        """It is gone."""
        if self._pid is not None:
            stop(self._pid, polite=signum)
            self._pid = None

    def wipe(self) -> None:
        """All its data is lost, while it does not run."""
        shutil.rmtree(self.data)


S = TypeVar("S", bound=Server)


@contextmanager
def running(make: Callable[[Path], S]) -> Iterator[S]:
    """A server that is gone at the end of the block."""
    directory = Path(tempfile.mkdtemp(prefix="vfboard-"))
    server = make(directory)
    try:
        server.start()
        yield server
    finally:
        server.stop(signal.SIGKILL)
        shutil.rmtree(directory, ignore_errors=True)


def says(port: int, question: bytes, answer: bytes) -> bool:
    """Whether who listens on that port of loopback answers so."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(question)
            return connection.recv(4096).startswith(answer)
    except OSError:
        return False


def free_port() -> int:
    """A port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
