"""A child's value, its error, and its death all come back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import json, os, signal, subprocess, sys, time
from virtflow.testing.forks import in_child
def value(): return {"pid": os.getpid(), "big": "x" * 300_000}
def error(): raise ValueError("no")
def die(): os.kill(os.getpid(), signal.SIGKILL)
def hang(): time.sleep(60)
def leave(): os._exit(3)
def orphan():
    subprocess.run(["sh", "-c", "sleep 0.2 & echo $!"], check=True, stdout=open(sys.argv[2], "w"))
    pid = int(open(sys.argv[2]).read())
    started = time.monotonic()
    while os.path.exists(f"/proc/{pid}"):
        time.sleep(0.01)
    return time.monotonic() - started
started = time.monotonic()
ended = in_child(globals()[sys.argv[1]], seconds=float(sys.argv[3]))
big = len(ended.value["big"]) if isinstance(ended.value, dict) else ended.value
print(json.dumps([ended.signal, ended.killed, big, ended.error, time.monotonic() - started]))
"""


@pytest.fixture
def run(tmp_path: Path):  # type: ignore[no-untyped-def]
    """In a process of its own: this one has threads, and must not adopt anybody."""

    def go(function: str, seconds: float = 20):  # type: ignore[no-untyped-def]
        import json

        command = [sys.executable, "-c", PROGRAM, function, str(tmp_path / "pid"), str(seconds)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ))
        return json.loads(done.stdout)

    return go


def test_what_a_child_returns_comes_back_however_long(run) -> None:  # type: ignore[no-untyped-def]
    assert run("value")[:4] == [0, False, 300_000, None]


def test_what_a_child_raises_comes_back_as_text(run) -> None:  # type: ignore[no-untyped-def]
    assert "ValueError: no" in run("error")[3]


def test_a_child_that_is_killed_is_told_from_one_that_fails(run) -> None:  # type: ignore[no-untyped-def]
    assert run("die")[:3] == [signal.SIGKILL, True, None]
    assert run("leave")[3] == "exit status 3"


def test_a_child_that_hangs_is_aborted(run) -> None:  # type: ignore[no-untyped-def]
    ended = run("hang", 0.3)
    assert ended[:2] == [signal.SIGABRT, False]
    assert ended[4] < 10


def test_orphans_are_buried_at_once(run) -> None:  # type: ignore[no-untyped-def]
    """libvirt waits for a QEMU that it stopped to be gone; not every init is quick."""
    assert run("orphan")[2] < 1.0


def test_it_is_quick() -> None:
    """The worker forks some thousand times: waiting for a child must not cost a time slice each."""
    code = "from virtflow.testing.forks import in_child\nimport time\nt=time.monotonic()\n" + (
        "for _ in range(20): in_child(lambda: None, seconds=5)\nprint(time.monotonic()-t)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert float(done.stdout) < 10
    assert time.monotonic() > 0
