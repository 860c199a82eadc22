"""A GlusterFS volume without its management daemon: one brick, and a mount for each host that shares it.

Both are user space processes; the kernel needs FUSE. libvirt knows this file system to be a shared one.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.lab.processes import alive, start, stop, wait_until
from tests.lab.servers import free_port

_START_SECONDS = 30

_SERVER = """\
volume posix
  type storage/posix
  option directory {brick}
end-volume
volume brick
  type features/locks
  subvolumes posix
end-volume
volume server
  type protocol/server
  option transport-type tcp
  option transport.socket.bind-address 127.0.0.1
  option transport.socket.listen-port {port}
  option auth.addr.brick.allow *
  subvolumes brick
end-volume
"""
_CLIENT = """\
volume shared
  type protocol/client
  option transport-type tcp
  option remote-host 127.0.0.1
  option remote-port {port}
  option remote-subvolume brick
end-volume
"""


def missing() -> str | None:
    """What this machine lacks for it."""
    if shutil.which("glusterfsd") is None or shutil.which("glusterfs") is None:
        return "package glusterfs-client"
    return None if Path("/dev/fuse").exists() else "a kernel with FUSE"


class Gluster:
    """In ``directory``, whose ``brick`` holds the files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.brick = directory / "brick"
        self._pids: list[int] = []
        self._mounts: list[Path] = []

    def start(self) -> None:
        self.brick.mkdir(parents=True)
        port = free_port()
        for name, volume in {"server": _SERVER, "client": _CLIENT}.items():
            (self._directory / f"{name}.vol").write_text(volume.format(brick=self.brick, port=port))
        self._run(["glusterfsd", *self._options("server")], lambda: _listens(port))

    def mount(self, directory: Path) -> None:
        """With a client of its own, as each host has one."""
        directory.mkdir(parents=True, exist_ok=True)
        client = ["glusterfs", *self._options("client", directory.name), str(directory)]
        self._mounts.append(directory)
        self._run(client, lambda: f" {directory} fuse.glusterfs " in Path("/proc/mounts").read_text())

    def stop(self) -> None:
        for directory in self._mounts:
            subprocess.run(["umount", "--lazy", str(directory)], capture_output=True, check=False)
        for pid in reversed(self._pids):
            stop(pid)

    def _options(self, role: str, name: str = "server") -> list[str]:
        log = self._directory / f"{name}.log"
        return ["--no-daemon", f"--volfile={self._directory / role}.vol", f"--log-file={log}"]

    def _run(self, argv: list[str], ready: Callable[[], bool]) -> None:
        pid = start(argv, self._directory / "output.log")
        self._pids.append(pid)
        if not wait_until(lambda: ready() or not alive(pid), _START_SECONDS) or not alive(pid):
            raise RuntimeError(f"{argv[0]} does not start, see {self._directory}")


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
