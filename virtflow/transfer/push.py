"""Send files to a receiver with rsync: authenticated, resumable, checked at the end, with progress in bytes.

rsync compares the whole file's checksum when it has arrived, and sends it again when that differs (rsync(1)). What an
interrupted run has sent stays (``--partial``), and the next run sends only what is missing or differs.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path

from virtflow.activity import IDLE, Activity
from virtflow.processes import run
from virtflow.transfer.receiver import USER, Receiver

_PROGRESS = re.compile(rb"\s*([\d,]+)\s+\d+%")
_IO_TIMEOUT = 60
"""Seconds without a byte after which rsync gives up."""
_ARGUMENTS = ("--inplace", "--partial", "--sparse", "--perms", "--times", f"--timeout={_IO_TIMEOUT}")


def push(
    files: Sequence[Path],
    receiver: Receiver,
    secret: str,
    activity: Activity = IDLE,
    *,
    ssh_command: str = "ssh",
    executable: str = "rsync",
) -> None:
    """Send the files, under their own names. Raises CommandFailed; what was sent until then stays.

    Progress is in bytes of the files, of what they take on this host.
    """
    if not files:
        return  # rsync would list what is there
    if receiver.transport == "ssh":
        remote = ["-s", "-e", ssh_command, *map(str, files), f"{_bracketed(receiver.address)}:{receiver.path}/"]
    else:
        target = f"rsync://{USER}@{_bracketed(receiver.address)}:{receiver.port}/{receiver.path}/"
        remote = ["--contimeout=20", "--password-file=-", *map(str, files), target]
    total = sum(path.stat().st_size for path in files)
    with _Progress(activity, total) as progress:
        run(
            [executable, *_ARGUMENTS, "--info=progress2", "--no-inc-recursive", "--outbuf=L", *remote],
            activity=progress,
            stdin=secret.encode() if receiver.transport == "rsync" else None,
            stdout=progress.descriptor,
        )


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


class _Progress(Activity):
    """Reads what rsync prints while it runs, and passes it on whenever it is asked whether to go on."""

    def __init__(self, activity: Activity, total: int) -> None:
        super().__init__(activity.name, activity.deadline)
        self._activity = activity
        self._total = total
        self._done = 0
        self._read, self.descriptor = os.pipe2(os.O_CLOEXEC)
        self._reader = threading.Thread(target=self._follow, name="rsync-progress", daemon=True)

    def __enter__(self) -> _Progress:
        self._reader.start()
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self.descriptor)
        self._reader.join()
        self._activity.report(self._done, self._total)

    def check(self) -> None:
        self._activity.report(self._done, self._total)
        self._activity.check()

    def cancelled(self) -> bool:
        return self._activity.cancelled()

    def _follow(self) -> None:
        with open(self._read, "rb", buffering=0) as output:
            while chunk := output.read(4096):
                for line in chunk.replace(b"\r", b"\n").splitlines():
                    if found := _PROGRESS.match(line):
                        self._done = min(int(found[1].replace(b",", b"")), self._total)
