"""Run an external program for a step: bounded, killable, never through a shell."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from virtflow.activity import IDLE, Activity
from virtflow.errors import CommandFailed

_ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}
"""glibc reserves 64 MiB of address space for every other thread that allocates (mallopt(3)): of a program that starts
as many as its host is busy, like qemu-img, a limit of address space would be a limit of threads."""
_QUOTED = 600
"""How much of a program's stderr an error quotes, in characters."""


@dataclass(frozen=True)
class Limits:
    """Resource limits put on the program by prlimit(1): address space in bytes, CPU in seconds."""

    address_space: int | None = None
    cpu_seconds: int | None = None

    def argv(self) -> list[str]:
        options = []
        if self.address_space is not None:
            options.append(f"--as={self.address_space}")
        if self.cpu_seconds is not None:
            options.append(f"--cpu={self.cpu_seconds}")
        return ["prlimit", *options, "--"] if options else []


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    activity: Activity = IDLE,
    limits: Limits | None = None,
    stdin: bytes | None = None,
    stdout: int | None = None,
    cwd: Path | None = None,
) -> bytes:
    """Run a program to its end and return its stdout, unless that goes to the file descriptor ``stdout``.

    Its process group is killed when the activity is cancelled or its deadline passes (both raise). Raises
    CommandFailed when the program cannot be started or exits with another status than 0.
    """
    # The kernel kills the program when this process dies, so that a resumed operation never meets its predecessor's
    # half-dead qemu-img still writing to the same file.
    limited = limits.argv() if limits else []
    command = ["setpriv", "--pdeathsig", "KILL", "--", *limited, *[os.fspath(word) for word in argv]]
    program = os.path.basename(os.fspath(argv[0]))
    source = subprocess.DEVNULL if stdin is None else _in_memory(stdin)
    try:
        process = subprocess.Popen(
            command,
            stdin=source,
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE,
            cwd=cwd,
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(_ONE_ARENA if limits else {})},
        )
    except OSError as error:
        raise CommandFailed(program=program, status=127, stderr=error.strerror or str(error)) from error
    finally:
        if source >= 0:
            os.close(source)
    try:
        out, err = _communicate(process, activity)
    except BaseException:
        _kill_group(process)
        raise
    if process.returncode != 0:
        raise CommandFailed(program=program, status=process.returncode, stderr=_tail(err))
    return out or b""


def _in_memory(content: bytes) -> int:
    """A file that has no name and lies on no disk. Not a pipe: ``communicate`` feeds one only in its first call."""
    descriptor = os.memfd_create("stdin", os.MFD_CLOEXEC)
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _communicate(process: subprocess.Popen[bytes], activity: Activity) -> tuple[bytes, bytes]:
    wait = 0.02
    while True:
        try:
            return process.communicate(timeout=wait)
        except subprocess.TimeoutExpired:
            activity.check()
            wait = 0.2


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _tail(stderr: bytes) -> str:
    text = stderr.decode("utf-8", "replace").strip()
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= _QUOTED else "..." + text[-_QUOTED:]


def end_process(pid: int, is_it: Callable[[int], bool], signals: Sequence[signal.Signals], seconds: float) -> bool:
    """Send a process that is no child of ours each signal until it is gone, and its files and sockets with it.

    ``is_it(pid)`` is asked once the process is held: a number that another program has by now is left alone. After each
    signal ``seconds`` are waited; False when it is still there. (/proc cannot tell: a process that is ending has lost
    its command line there before it has closed its files.)
    """
    try:
        held = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        if not is_it(pid):
            return True
        watched = select.poll()
        watched.register(held, select.POLLIN)
        for number in signals:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(held, number)
            if watched.poll(seconds * 1000):
                return True
        return False
    finally:
        os.close(held)
