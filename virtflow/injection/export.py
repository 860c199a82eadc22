"""A disk of any format as a raw file: qemu-storage-daemon shows it through FUSE."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from virtflow.errors import CommandFailed
from virtflow.injection.filesystem import Unsupported

PROGRAM = "qemu-storage-daemon"
_SECONDS = 20.0
"""For starting and for ending, each; ending writes what is not written yet."""


class RawExport:
    """Shows ``disk`` as ``path``, a raw file; a raw disk is shown as it is.

    The daemon is a child of this process, which is the first of its process namespace: they end together.
    """

    def __init__(self, disk: Path, disk_format: str, directory: Path) -> None:
        self.path = disk if disk_format == "raw" else directory / "disk.raw"
        self._disk = disk
        self._format = disk_format
        self._daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Raises Unsupported where this host cannot, CommandFailed when the daemon does not come up."""
        if self._format == "raw":
            return
        if shutil.which(PROGRAM) is None or not os.access("/dev/fuse", os.R_OK | os.W_OK):
            raise Unsupported(f"a {self._format} disk needs {PROGRAM} and /dev/fuse")
        self.path.touch(mode=0o600)
        bare = self.path.stat().st_dev
        self._daemon = subprocess.Popen(
            [PROGRAM, "--blockdev", json.dumps(self._blockdev()), "--export", json.dumps(self._fuse_export())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        deadline = time.monotonic() + _SECONDS
        while self.path.stat().st_dev == bare:
            if self._daemon.poll() is not None:
                self._fail()
            if time.monotonic() > deadline:
                raise CommandFailed(program=PROGRAM, status=124, stderr="it shows no disk")
            time.sleep(0.002)

    def stop(self) -> None:
        """Bring everything to the disk and end the daemon. Raises CommandFailed when that is not certain."""
        daemon, self._daemon = self._daemon, None
        if daemon is None:
            return
        daemon.terminate()
        try:
            _, stderr = daemon.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            daemon.kill()
            _, stderr = daemon.communicate()
        if daemon.returncode != 0:
            raise CommandFailed(program=PROGRAM, status=daemon.returncode, stderr=_text(stderr))

    def _fail(self) -> None:
        daemon, self._daemon = self._daemon, None
        assert daemon is not None
        _, stderr = daemon.communicate()
        raise CommandFailed(program=PROGRAM, status=daemon.returncode, stderr=_text(stderr))

    def _blockdev(self) -> dict[str, object]:
        # The backing file and its format are those that we have written into our own disk.
        return {"driver": self._format, "node-name": "disk", "file": {"driver": "file", "filename": str(self._disk)}}

    def _fuse_export(self) -> dict[str, object]:
        return {
            "type": "fuse",
            "id": "raw",
            "node-name": "disk",
            "mountpoint": str(self.path),
            "writable": True,
            "growable": False,
        }


def _text(stderr: bytes) -> str:
    return "".join(c if c.isprintable() else " " for c in stderr.decode("utf-8", "replace").strip())[-300:]
