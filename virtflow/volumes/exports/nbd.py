"""Volumes by NBD: a qemu-nbd for each, raw or qcow2, on a port of its own of one address.

NBD knows no user: whoever reaches the address can read and write. ``NAME.json`` says where a volume is served, so that
a server that has died is started again on the same port, where running guests look for it. They do not learn that it
had died, so it says that something is written when it is on the disk: with a cache of its own, of what is qcow2 for one
thing, it would take with it what guests believe to be there.
"""

from __future__ import annotations

import json
import signal
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from virtflow.activity import IDLE, Activity
from virtflow.errors import CommandFailed, VolumeError
from virtflow.files.durable import remove_files, storage_errors, write_private
from virtflow.files.lock import hold
from virtflow.processes import end_process, run
from virtflow.volumes.driver import Connection, Reach
from virtflow.volumes.exports.exporter import Backing, check_wanted

_CLIENTS = 4
"""At once: the host that has the volume, the one that a guest moves to, and room for a connection that hangs."""
_SECONDS = 10.0


@dataclass(frozen=True)
class _Served:
    """What ``NAME.json`` says."""

    port: int
    path: str
    format: str


class NbdExporter:
    """``directory`` is where it keeps what it serves; ports are ``first`` to ``last``."""

    def __init__(self, address: str, first: int, last: int, directory: Path, executable: str = "qemu-nbd") -> None:
        self._address = address
        self._ports = range(first, last + 1)
        self._directory = directory
        self._executable = executable

    def export(self, name: str, backing: Backing, reach: Reach) -> Connection:
        with hold(self._directory / ".lock"):
            check_wanted(name, reach)
            served = self._served(name)
            if served is None:
                served = _Served(self._free_port(name), str(backing.path), backing.format)
                write_private(self._record(name), json.dumps(asdict(served)), "export")
            _ours(served, "export", name, backing)
            if self._server(name) is None:
                self._start(name, served)
        return Connection("nbd", address=self._address, port=served.port, target=name)

    def unexport(self, name: str, backing: Backing) -> None:
        with hold(self._directory / ".lock"):
            served = self._served(name)
            if served is not None:
                _ours(served, "unexport", name, backing)
            self._stop(name)
            remove_files(self._pid_file(name), self._record(name))

    def exported(self, directory: Path) -> list[str]:
        names = [path.name.removesuffix(".json") for path in self._directory.glob("*.json")]
        found = {name: self._served(name) for name in names}
        inside = (name for name, each in found.items() if each and directory in Path(each.path).parents)
        return sorted(name for name in inside if self._server(name) is not None)

    def check_growth(self, name: str) -> None:
        if self._server(name) is not None:
            reason = "it is served by NBD, which tells no client of a new size: detach it first"
            raise VolumeError(action="extend", volume=name, reason=reason)

    def grown(self, name: str, backing: Backing, activity: Activity = IDLE) -> None:
        """Nobody serves it: ``check_growth`` comes first."""

    # -- inside

    def _start(self, name: str, served: _Served) -> None:
        pid_file = self._pid_file(name)
        remove_files(pid_file)
        command = [self._executable, "--fork", "--persistent", f"--shared={_CLIENTS}", f"--pid-file={pid_file}"]
        command += ["--discard=unmap", "--cache=directsync", f"--format={served.format}", f"--export-name={name}"]
        try:
            run([*command, f"--bind={self._address}", f"--port={served.port}", served.path])
        except CommandFailed as error:
            raise VolumeError(action="export", volume=name, reason=str(error)) from error

    def _stop(self, name: str) -> None:
        pid = self._server(name)
        signals = (signal.SIGTERM, signal.SIGKILL)
        if pid is None or end_process(pid, lambda held: self._server(name) == held, signals, _SECONDS):
            return
        raise VolumeError(action="unexport", volume=name, reason=f"qemu-nbd (process {pid}) does not end")

    def _server(self, name: str) -> int | None:
        """The process that serves it; a number that another program has by now does not count."""
        try:
            pid = int(self._pid_file(name).read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return None
        return pid if f"--pid-file={self._pid_file(name)}".encode() in words else None

    def _free_port(self, name: str) -> int:
        taken = {each.port for path in self._directory.glob("*.json") if (each := _read(path)) is not None}
        for port in self._ports:
            if port not in taken and _is_free(self._address, port):
                return port
        reason = f"all ports of [volumes] nbd_port_min to nbd_port_max on {self._address} are taken"
        raise VolumeError(action="export", volume=name, reason=reason)

    def _served(self, name: str) -> _Served | None:
        return _read(self._record(name))

    def _record(self, name: str) -> Path:
        return self._directory / f"{name}.json"

    def _pid_file(self, name: str) -> Path:
        return self._directory / f"{name}.pid"


def _read(path: Path) -> _Served | None:
    with storage_errors("read", path), suppress(FileNotFoundError):
        return _Served(**json.loads(path.read_bytes()))
    return None


def _ours(served: _Served, action: str, name: str, backing: Backing) -> None:
    if (served.path, served.format) != (str(backing.path), backing.format):
        reason = f"under its name {served.path} is served, as {served.format}"
        raise VolumeError(action=action, volume=name, reason=reason)


def _is_free(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
