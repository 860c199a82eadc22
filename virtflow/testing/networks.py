"""Network namespaces: hosts on one machine that see nothing of each other's taps and bridges."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
_CLONE_NEWNET = 0x40000000


def create(name: str) -> Path:
    """A new one, by name below /run/netns; its path."""
    subprocess.run(["ip", "netns", "add", name], check=True, capture_output=True)
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True, capture_output=True)
    return Path("/run/netns", name)


def remove(path: Path) -> None:
    """It is gone when its last process is."""
    subprocess.run(["ip", "netns", "delete", path.name], check=False, capture_output=True)


def enter(path: Path) -> None:
    """Move the calling thread there (setns(2); os.setns is there from Python 3.12 on)."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    finally:
        os.close(descriptor)


def call_in(path: Path | None, function: Callable[[], T]) -> T:
    """What the function returns there, in a thread of its own; right here where no namespace is given."""
    if path is None:
        return function()
    outcome: list[T] = []
    failure: list[BaseException] = []

    def there() -> None:
        try:
            enter(path)
            outcome.append(function())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            failure.append(error)

    thread = threading.Thread(target=there, name=f"in-{path.name}")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
