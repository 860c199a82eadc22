"""An rsync daemon that lives for one operation: one module, one user, one secret, one directory to write into.

It is bound to one address, runs in a chroot of the directory, and nothing can be read or listed through it
(rsyncd.conf(5)). It outlives the process that has started it: its pid is in a file beside its configuration.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from virtflow.activity import IDLE, Activity
from virtflow.errors import CommandFailed, HostLacks, HostStorageError
from virtflow.files.durable import storage_errors, write_new
from virtflow.processes import run

MODULE = "incoming"
USER = "virtflow"
_START_SECONDS = 10.0
_STOP_SECONDS = 5.0
_LISTEN = "0A"


@dataclass(frozen=True)
class Receiver:
    """Where to send to: ``transport`` rsync (a daemon at ``port``) or ssh (``path`` on the host itself)."""

    transport: str
    address: str
    port: int
    path: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Receivers:
    """The daemons of this host. ``control`` is the directory of what they are started with, one below for each."""

    def __init__(self, control: Path, address: str, ports: tuple[int, int], executable: str = "rsync") -> None:
        self._control = control
        self.address = address
        self._ports = ports
        self._executable = executable

    def directory(self, operation: str) -> Path:
        return self._control / operation

    def start(self, operation: str, target: Path, secret: str, activity: Activity = IDLE) -> Receiver:
        """Let a daemon receive into ``target``; the one of this operation that runs already is stopped first.

        Raises HostLacks, CommandFailed, HostStorageError (no port is free).
        """
        program = shutil.which(self._executable)
        if program is None:
            remedy = "run: apt-get install --no-install-recommends rsync"
            raise HostLacks(action="receive disks", missing="rsync", remedy=remedy)
        self.stop(operation)
        directory = self.directory(operation)
        with storage_errors("create", directory):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_new(directory / "secrets", f"{USER}:{secret}\n".encode())
        for port in self._free_ports():
            write_new(directory / "rsyncd.conf", self._configuration(directory, target, port).encode())
            run([program, "--daemon", f"--config={directory / 'rsyncd.conf'}"], activity=activity)
            if self._listens(directory, port, activity):
                return Receiver("rsync", self.address, port, MODULE)
            self._kill(directory)
        reason = f"no port of {self._ports[0]}-{self._ports[1]} is free"
        raise HostStorageError(action="receive disks in", path=target, reason=reason)

    def stop(self, operation: str) -> None:
        """Stop the operation's daemon, with whoever sends to it, and remove what it was started with. None is fine."""
        directory = self.directory(operation)
        self._kill(directory)
        with storage_errors("remove", directory):
            if directory.exists():
                shutil.rmtree(directory)

    def running(self, operation: str) -> int | None:
        """The pid of the operation's daemon, or None."""
        return _daemon(self.directory(operation))

    def _configuration(self, directory: Path, target: Path, port: int) -> str:
        return "\n".join(
            (
                f"port = {port}",
                f"address = {self.address}",
                f"pid file = {directory / 'pid'}",
                f"log file = {directory / 'log'}",
                "use chroot = yes",
                "uid = root",
                "gid = root",
                "max connections = 4",
                f"lock file = {directory / 'lock'}",
                f"[{MODULE}]",
                f"path = {target}",
                "read only = no",
                "write only = yes",
                "list = no",
                f"auth users = {USER}",
                f"secrets file = {directory / 'secrets'}",
                "refuse options = delete links hard-links copy-dest link-dest devices specials",
                "",
            )
        )

    def _free_ports(self) -> list[int]:
        """Ports at which nobody listens now; between this look and the daemon's own somebody may be quicker."""
        try:
            family = socket.getaddrinfo(self.address, None, type=socket.SOCK_STREAM)[0][0]
        except socket.gaierror as error:
            raise HostLacks(
                action="receive disks",
                missing=f"the address {self.address} ({error.strerror})",
                remedy="set [resize] address to the one at which other hosts reach this one",
            ) from error
        first, last = self._ports
        start = os.getpid() % (last - first + 1)
        order = [first + (start + each) % (last - first + 1) for each in range(last - first + 1)]
        return [port for port in order if self._is_free(port, family)]

    def _is_free(self, port: int, family: int) -> bool:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.address, port))
            except OSError:
                return False
        return True

    def _listens(self, directory: Path, port: int, activity: Activity) -> bool:
        """Whether our daemon came to listen; it ends at once when somebody else has the port."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            pid = _daemon(directory)
            if pid is not None:
                # That somebody answers there is not enough: another operation's daemon may have been quicker.
                if _has_port(pid, port):
                    return True
            elif "bind() failed" in _read(directory / "log") or "unable to bind" in _read(directory / "log"):
                return False
            activity.sleep(0.02)
        raise CommandFailed(program="rsync", status=1, stderr=_read(directory / "log")[-600:])

    @staticmethod
    def _kill(directory: Path) -> None:
        pid = _daemon(directory)
        if pid is None:
            return
        deadline = time.monotonic() + _STOP_SECONDS
        with contextlib.suppress(ProcessLookupError):
            # Who receives at this moment is a child of the daemon, in its session.
            # Told to end, a daemon takes half a second over it; only who is receiving has something to put in order.
            os.killpg(os.getpgid(pid), signal.SIGTERM if _has_children(pid) else signal.SIGKILL)
            while _daemon(directory) == pid:
                if time.monotonic() > deadline:
                    os.killpg(os.getpgid(pid), signal.SIGKILL)
                time.sleep(0.01)


def _has_children(pid: int) -> bool:
    """True also where the kernel does not tell."""
    tasks = Path(f"/proc/{pid}/task/{pid}/children")
    return not tasks.exists() or bool(_read(tasks).strip())


def _has_port(pid: int, port: int) -> bool:
    """Whether it is this process that listens at the port (proc(5))."""
    listening = set()
    for table in ("tcp", "tcp6"):
        rows = [line.split() for line in _read(Path(f"/proc/{pid}/net/{table}")).splitlines()[1:]]
        listening |= {
            f"socket:[{row[9]}]" for row in rows if row[3] == _LISTEN and int(row[1].rpartition(":")[2], 16) == port
        }
    descriptors = Path(f"/proc/{pid}/fd")
    try:
        names = os.listdir(descriptors)
    except OSError:  # it has ended meanwhile
        return False
    for name in names:
        with contextlib.suppress(OSError):
            if str((descriptors / name).readlink()) in listening:
                return True
    return False


def _daemon(directory: Path) -> int | None:
    """The pid in the directory's file, if that process was started with the directory's configuration."""
    text = _read(directory / "pid").strip()
    if not text.isdigit():
        return None
    with contextlib.suppress(OSError):
        command = Path("/proc", text, "cmdline").read_bytes()
        state = Path("/proc", text, "stat").read_text().rpartition(")")[2].split()[0]
        if os.fsencode(directory / "rsyncd.conf") in command and state != "Z":
            return int(text)
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
