"""Running programs: what they are given, also when it takes them longer to read it than one look; and ending them."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from virtflow.activity import Activity
from virtflow.processes import Limits, end_process, run

_SERVER = """
import signal, socket, sys
if sys.argv[1:] == ["stubborn"]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
memory = bytearray(64 << 20)
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
signal.pause()
"""

_THREADS = """
import threading
together = threading.Barrier(33)

def work():
    kept = [bytearray(1 << 14) for _ in range(8)]
    together.wait()

for _ in range(32):
    threading.Thread(target=work, daemon=True).start()
together.wait()
print(32)
"""


@contextmanager
def _server(*words: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process that listens, and its port."""
    with subprocess.Popen([sys.executable, "-c", _SERVER, *words], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            yield child, int(child.stdout.readline())
        finally:
            child.kill()


def test_a_slow_program_gets_all_of_its_input() -> None:
    given = bytes(range(256)) * 4096
    assert run(["sh", "-c", "sleep 0.4; cat"], stdin=given) == given


def test_the_activity_is_asked_while_a_slow_program_has_not_read_its_input() -> None:
    asked = threading.Event()

    class Watched(Activity):
        def check(self) -> None:
            asked.set()
            super().check()

    started = time.monotonic()
    run(["sh", "-c", "sleep 0.4; cat >/dev/null"], stdin=bytes(1 << 20), activity=Watched("test"))
    assert asked.is_set()
    assert time.monotonic() - started < 10


def test_a_program_whose_address_space_is_limited_may_start_threads() -> None:
    limits = Limits(address_space=768 << 20)
    assert run([sys.executable, "-c", _THREADS], limits=limits) == b"32\n"


def test_when_a_process_has_ended_its_port_is_free() -> None:
    for _ in range(10):
        with _server() as (child, port):
            assert end_process(child.pid, lambda _pid: True, (signal.SIGTERM,), 10)
            socket.create_server(("127.0.0.1", port), reuse_port=False).close()


def test_a_process_that_does_not_heed_a_signal_gets_the_next() -> None:
    with _server("stubborn") as (child, _port):
        assert not end_process(child.pid, lambda _pid: True, (signal.SIGTERM,), 0.1)
        assert child.poll() is None
        assert end_process(child.pid, lambda _pid: True, (signal.SIGTERM, signal.SIGKILL), 0.1)


def test_a_number_that_another_program_has_by_now_is_left_alone() -> None:
    with _server() as (child, _port):
        assert end_process(child.pid, lambda pid: pid != child.pid, (signal.SIGKILL,), 10)
        assert child.poll() is None


def test_a_process_that_is_gone_has_ended() -> None:
    with _server() as (child, _port):
        child.kill()
        child.wait()
        assert end_process(child.pid, lambda _pid: True, (signal.SIGTERM,), 10)
