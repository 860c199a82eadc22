"""Children of the lab: started so that they die with it, stopped by their process id."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_children: dict[int, subprocess.Popen[bytes]] = {}


def start(argv: Sequence[str], log: Path, *, survive: bool = False) -> int:
    """Start a daemon in the foreground of its own session; unless it may survive, the kernel kills it when we die.

    Returns its pid, which is the pid of the last program in ``argv`` as long as those before it exec the next.
    """
    guarded = list(argv) if survive else ["setpriv", "--pdeathsig", "KILL", "--", *argv]
    with log.open("ab") as output:
        child = subprocess.Popen(
            guarded, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    _children[child.pid] = child
    return child.pid


def stop(pid: int, *, polite: signal.Signals = signal.SIGTERM, patience: float = 5) -> None:
    """Ask, wait ``patience`` seconds, then kill; a process that is gone already is fine."""
    for signum in (polite, signal.SIGKILL):
        try:
            os.kill(pid, signum)
        except ProcessLookupError:
            _children.pop(pid, None)
            return
        if wait_until(lambda: not alive(pid), patience):
            return
    raise RuntimeError(f"process {pid} survived SIGKILL")


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    child = _children.get(pid)
    if child is not None:
        if child.poll() is None:
            return True
        del _children[pid]
        return False
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until(condition: Callable[[], bool], seconds: float, pause: float = 0.02) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True
