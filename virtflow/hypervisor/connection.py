"""Open libvirt: the one event loop of the process, and the driver embedded in this process.

``qemu:///embed?root=DIR`` runs libvirt's QEMU driver inside the calling process, with everything it keeps under DIR.
What follows from that, measured with libvirt 9.0:

* one process at a time may hold DIR, until it ends: closing the connection does not give DIR back;
* every open registers the driver again, and there is room for about twenty ("Too many drivers, cannot register QEMU").
  So one connection is opened, shared, and never closed;
* an open that fails because another process holds DIR cannot be repeated in the same process ("qemu state driver is
  not active" from then on). So whether DIR is free is found out *before* libvirt is asked;
* guests survive the process, and the next process with the same DIR finds them again;
* a process killed at the wrong moment leaves what nobody looks for (see ``embed_leftovers``);
* the first question about capabilities takes seconds, until ``DIR/cache`` knows the QEMU programs of the host.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
import time
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

from virtflow.errors import HypervisorUnreachable
from virtflow.hypervisor.binding import libvirt
from virtflow.hypervisor.embed_leftovers import clear_leftovers

QEMU_CONF = """\
# Written once by virtflow for libvirt's embedded QEMU driver; yours to change afterwards.
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
remember_owner = 0
stdio_handler = "file"
"""
"""No daemon stands beside an embedded driver: no virtlogd (stdio_handler), no machined (cgroups)."""

LONGEST_EMBED_ROOT = 52
"""In bytes. libvirt puts QEMU's monitor socket at ``DIR/lib/qemu/domain-<id>-<20 of the name>/monitor.sock``, and the
path of a UNIX socket has at most 107 bytes (unix(7)). That leaves four digits for the id."""

_KEEPALIVE_SECONDS = 5
_KEEPALIVE_COUNT = 3
_RETRY_SECONDS = 0.1

_guard = threading.Lock()
_event_loop: threading.Thread | None = None
_held_root: Path | None = None
_held_lock: int | None = None
_embedded: libvirt.virConnect | None = None


def open_connection(uri: str, *, embed_root: Path | None = None, wait_seconds: float = 0.0) -> libvirt.virConnect:
    """Open ``uri``; for ``qemu:///embed`` below ``embed_root`` (or the root that the URI itself names).

    Waits up to ``wait_seconds`` for another process to let go of an embed root. Raises HypervisorUnreachable.
    """
    start_event_loop()
    root = embed_root_of(uri, embed_root)
    if root is not None:
        uri = f"qemu:///embed?root={quote(str(root))}"
        _hold_embed_root(uri, root, wait_seconds)
        return _open_embedded(uri)
    connection = _open(uri)
    with contextlib.suppress(libvirt.libvirtError):  # local drivers have no keepalive
        connection.setKeepAlive(_KEEPALIVE_SECONDS, _KEEPALIVE_COUNT)
    return connection


def close_connection(connection: libvirt.virConnect) -> None:
    """Close what ``open_connection`` has returned. The embedded driver's connection stays open."""
    if connection is not _embedded:
        with contextlib.suppress(libvirt.libvirtError):
            connection.close()


def _open(uri: str) -> libvirt.virConnect:
    try:
        return libvirt.open(uri)
    except libvirt.libvirtError as error:
        raise HypervisorUnreachable(uri=uri, reason=_open_failure(error)) from error


def _open_embedded(uri: str) -> libvirt.virConnect:
    global _embedded  # noqa: PLW0603 - the embedded driver is one per process
    with _guard:
        if _embedded is None:
            _embedded = _open(uri)
        return _embedded


def start_event_loop() -> None:
    """Run libvirt's event loop in a daemon thread, once per process; has to come before the first open."""
    global _event_loop  # noqa: PLW0603 - libvirt keeps one event loop per process, so there is one of it here too
    with _guard:
        if _event_loop is not None:
            return
        libvirt.virEventRegisterDefaultImpl()
        _event_loop = threading.Thread(target=_run_events, name="libvirt-events", daemon=True)
        _event_loop.start()


def embed_root_of(uri: str, embed_root: Path | None) -> Path | None:
    """The embed root that ``uri`` and ``embed_root`` mean together, or None when ``uri`` is not an embedded driver."""
    parts = urlsplit(uri)
    if parts.path != "/embed":
        return None
    named = parse_qs(parts.query).get("root")
    root = Path(named[0]) if named else embed_root
    if root is None:
        raise HypervisorUnreachable(uri=uri, reason="an embedded driver needs a root directory (embed_root)")
    return Path(os.path.abspath(root))


def embed_root_holder(root: Path) -> int | None:
    """The pid of another process of virtflow's that runs the driver in ``root``, or None."""
    if _held_root is not None:
        return None  # this one does; and to open the lock's file again would lose the lock
    with contextlib.suppress(OSError):
        return _lock_holder(root / "run" / "virtflow.lock")
    return None


def _run_events() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            time.sleep(_RETRY_SECONDS)


def _open_failure(error: libvirt.libvirtError) -> str:
    reason = error.get_error_message() or str(error)
    if "state driver is not active" in reason:
        return "the embedded driver failed earlier in this process and cannot be tried again: start a new process"
    return str(reason)


def _hold_embed_root(uri: str, root: Path, wait_seconds: float) -> None:
    """Make sure that libvirt will find ``root`` ready and free. Held until the process ends, as libvirt holds it."""
    global _held_root, _held_lock  # noqa: PLW0603 - the embedded driver is one per process
    with _guard:
        if _held_root is not None:
            if _held_root != root:
                raise HypervisorUnreachable(
                    uri=uri, reason=f"this process already runs an embedded driver in {_held_root}: one per process"
                )
            return
        if len(os.fsencode(root)) > LONGEST_EMBED_ROOT:
            raise HypervisorUnreachable(
                uri=uri,
                reason=f"the root's path is longer than {LONGEST_EMBED_ROOT} bytes, too long for QEMU's sockets",
            )
        try:
            _write_once(root / "etc" / "qemu.conf", QEMU_CONF)
            (root / "run").mkdir(exist_ok=True)
            _held_lock = _lock_root(uri, root, wait_seconds)
            clear_leftovers(root)
        except OSError as error:
            raise HypervisorUnreachable(uri=uri, reason=f"{error.filename or root}: {error.strerror}") from error
        _held_root = root


def _write_once(path: Path, text: str) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f"{path.name}.tmp.{os.getpid()}")
    try:
        staged.write_text(text)
        with contextlib.suppress(FileExistsError):  # another process was first: what it wrote stands
            os.link(staged, path)
    finally:
        staged.unlink(missing_ok=True)


def _lock_root(uri: str, root: Path, wait_seconds: float) -> int:
    """Take our own lock on ``root``, then wait until libvirt's is free too. Returns the descriptor that holds ours.

    Ours lets virtflow processes queue without a race. Both are POSIX record locks: they go with their process, however
    it ends, and are not inherited by QEMU or any other child.
    """
    deadline = time.monotonic() + wait_seconds
    ours = os.open(root / "run" / "virtflow.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            with contextlib.suppress(BlockingIOError, PermissionError):
                fcntl.lockf(ours, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _lock_holder(root / "run" / "qemu" / "driver.pid") is None:
                    return ours
            if time.monotonic() >= deadline:
                break
            time.sleep(_RETRY_SECONDS)
        holder = _lock_holder(root / "run" / "virtflow.lock", ours) or _lock_holder(
            root / "run" / "qemu" / "driver.pid"
        )
        raise HypervisorUnreachable(
            uri=uri,
            reason=f"process {holder or 'unknown'} runs the embedded driver in {root} (waited {wait_seconds:g} s)",
        )
    except BaseException:
        os.close(ours)
        raise


def _lock_holder(path: Path, descriptor: int | None = None) -> int | None:
    """The pid of another process that holds a record lock on the file, or None.

    Never to be called on libvirt's file once this process holds it: closing any descriptor drops the lock (fcntl(2)).
    """
    layout = "hhqqi4x"  # struct flock of 64-bit Linux: type, whence, start, length, pid
    question = struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        opened = os.open(path, os.O_RDWR | os.O_CLOEXEC) if descriptor is None else None
    except FileNotFoundError:
        return None
    try:
        answer = fcntl.fcntl(opened if descriptor is None else descriptor, fcntl.F_GETLK, question)  # type: ignore[arg-type]
    finally:
        if opened is not None:
            os.close(opened)
    kind, _, _, _, pid = struct.unpack(layout, answer)
    return None if kind == fcntl.F_UNLCK else int(pid)
