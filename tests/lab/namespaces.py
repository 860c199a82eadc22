"""Network namespaces of one run of the lab: named after the run, so that runs beside each other never meet."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from tests.lab.processes import stop

T = TypeVar("T")
_CLONE_NEWNET = 0x40000000


def ip(*words: str) -> str:
    """Run ip(8); its output."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


class Namespace:
    """A network namespace below /run/netns."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = Path("/run/netns", name)

    def create(self) -> None:
        ip("netns", "add", self.name)
        self.ip("link", "set", "lo", "up")

    def ip(self, *words: str) -> str:
        return ip("-n", self.name, *words)

    def argv(self, argv: Sequence[str]) -> list[str]:
        """The command that runs ``argv`` in this network, with the file systems of the caller."""
        return ["nsenter", f"--net={self.path}", "--", *argv]

    def call(self, function: Callable[[], T]) -> T:
        """Call a function in this process but in this network; sockets that it opens stay in it.

        In a thread of its own, for setns(2) moves one thread only.
        """
        outcome: list[T] = []
        failure: list[BaseException] = []

        def enter() -> None:
            try:
                _setns(self.path)
                outcome.append(function())
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                failure.append(error)

        thread = threading.Thread(target=enter, name=f"in-{self.name}")
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return outcome[0]

    def pids(self) -> list[int]:
        """Every process whose network this is."""
        return [int(pid) for pid in ip("netns", "pids", self.name).split()]

    def remove(self) -> None:
        """Stop every process in it (all of them are the lab's) and delete it."""
        if not self.path.exists():
            return
        # What stops may still start something (a libvirtd its hooks): until nothing is left.
        while pids := self.pids():
            for pid in pids:
                stop(pid)
        ip("netns", "delete", self.name)


def _setns(path: Path) -> None:
    # os.setns is there from Python 3.12 on.
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    finally:
        os.close(descriptor)
