"""Raw LUKS volumes, made and filled by qemu-img. The key reaches it on its standard input: it is in no file and on no
command line.

LUKS version 1, as QEMU and cryptsetup know it (https://gitlab.com/cryptsetup/cryptsetup/-/wikis/Specification).
"""

from __future__ import annotations

import os
from pathlib import Path

from virtflow.activity import IDLE, Activity
from virtflow.errors import CommandFailed
from virtflow.images.progress import watch_growth
from virtflow.processes import run

HEADER = 2068480
"""Bytes of a LUKS header with eight slots for a 512 bit key, as QEMU makes it: the guest has that much less."""

_SECRET = ["--object", "secret,id=key,file=/dev/stdin"]
_ITERATIONS_MS = 10
"""What is derived from a passphrase that was made up at random needs no slowing down."""

_TOO_BUSY = "Unable to get accurate CPU usage"
"""QEMU measures how fast it derives keys, and gives up when the host is so busy that the clock of its thread stands."""
_ATTEMPTS = 10


class Luks:
    """Every method raises CommandFailed when qemu-img fails. Paths are absolute."""

    def __init__(self, executable: str = "qemu-img") -> None:
        self._executable = executable

    def format(self, path: Path | str, size: int, key: bytes, activity: Activity = IDLE) -> None:
        """Let the file or block device of ``size`` bytes be an encrypted disk, whatever is on it. Done twice, it is the
        same one with another header."""
        options = f"key-secret=key,iter-time={_ITERATIONS_MS}"
        argv = ["create", "-q", "-f", "luks", *_SECRET, "-o", options, _absolute(path), str(size - HEADER)]
        for attempt in range(_ATTEMPTS):
            try:
                run([self._executable, *argv], activity=activity, stdin=key)
            except CommandFailed as error:
                if _TOO_BUSY not in error.stderr or attempt == _ATTEMPTS - 1:
                    raise
            else:
                return

    def fill(self, path: Path | str, image: Path, size: int, key: bytes, activity: Activity = IDLE) -> None:
        """Write the raw ``image`` of ``size`` bytes onto the encrypted disk. Its zeros are written too: what was never
        written to an encrypted disk reads as noise."""
        name = _absolute(path).replace(",", ",,")  # a comma ends an option
        target = f"driver=luks,key-secret=key,file.driver={_driver(path)},file.filename={name}"
        argv = ["convert", "-n", "-f", "raw", "-t", "writeback", *_SECRET, "--target-image-opts"]
        with watch_growth(activity, Path(path), size) as watching:
            run([self._executable, *argv, _absolute(image), target], activity=watching, stdin=key)


def payload(size: int) -> int:
    """How many bytes the guest has of an encrypted volume of ``size`` bytes."""
    return size - HEADER


def _driver(path: Path | str) -> str:
    return "host_device" if Path(path).is_block_device() else "file"


def _absolute(path: Path | str) -> str:
    text = os.fspath(path)
    if not os.path.isabs(text):
        raise ValueError(f"qemu-img needs an absolute path, not {text!r}")
    return text
