"""Many hosts in one process: ``python -m benchmarks.scale_hosts URL DIRECTORY FIRST COUNT SECONDS [OPTION=VALUE...]``.

A stand-in for as many workers, with their heartbeats. Claiming, running and answering segments is the real code; what
is shared, and what each real worker has of its own, are connections, the thread that listens, and threads that wait.
``beat=SECONDS`` is how often each host shows a sign of life. Answers with its CPU seconds and commits when its input
ends.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import queue
import sys
import threading
import time

from benchmarks.simulated import configuration, options, registry
from virtflow.engine.core import EngineCore
from virtflow.engine.segment_host import run_segment
from virtflow.persistence.claim import owner_here
from virtflow.persistence.posting import host_topic
from virtflow.worker.connecting import connect

_THREADS = 64
_BEAT = 15.0
_SWEEP = 1.0
CAPABILITIES = {"arch": "x86_64", "virt_types": ["kvm", "qemu"], "machines": ["pc", "q35"], "firmware": ["bios"]}


class Hosts:
    """The topics with news stand in a queue, from which threads take them."""

    def __init__(self, url: str, directory: str, first: int, count: int, seconds: float, **given: str) -> None:
        self._every = float(given.pop("beat", _BEAT))
        config = configuration(url, directory, "hosts", engine__threads=_THREADS, **given)
        self._runner, self._board = connect(config, registry=registry(seconds))
        self._lease = config.jobboard.lease
        self._cores = {host_topic(name): self._core(name) for name in names(first, count)}
        self._news: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        listening = self._board.repository.news  # type: ignore[attr-defined]
        listening.tell = self._tell
        self._threads = [threading.Thread(target=self._work) for _ in range(_THREADS)]
        self._threads += [threading.Thread(target=self._beat), threading.Thread(target=self._listen)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._stop.set()
        for _ in range(_THREADS):
            self._news.put(None)
        for thread in self._threads:
            thread.join()
        self._runner.close()

    @property
    def commits(self) -> int:
        return self._runner.core.writer.commits

    def _core(self, name: str) -> EngineCore:
        core = copy.copy(self._runner.core)
        core.config = dataclasses.replace(core.config, host=name)
        core.owner = owner_here(name)
        core.hosts.register(name, 64, 524288, 40000, capabilities=CAPABILITIES, worker=core.owner)
        return core

    def _tell(self, topic: str | None) -> None:
        for each in self._cores if topic is None else [topic]:
            if each in self._cores:
                self._news.put(each)

    def _listen(self) -> None:
        """Keeps the board listening; what news were lost is found by looking at what waits."""
        while not self._stop.wait(_SWEEP):
            self._board._listening.mark([])  # type: ignore[attr-defined]
            for job in self._board.jobs(limit=10_000):
                if job.state == "READY":
                    self._tell(job.topic)

    def _work(self) -> None:
        while (topic := self._news.get()) is not None:
            core = self._cores[topic]
            while (job := self._board.claim([topic], core.owner, self._lease)) is not None:
                assert job.segment is not None
                run_segment(core, job.segment)
                self._board.finish(job)

    def _beat(self) -> None:
        cores = list(self._cores.values())
        while not self._stop.is_set():
            start = time.monotonic()
            for core in cores:
                assert core.hosts.heartbeat(core.config.host, core.owner), "another process has registered the host"
                if self._stop.wait(self._every / len(cores) / 2):
                    return
            self._stop.wait(max(0.0, self._every - (time.monotonic() - start)))


def names(first: int, count: int) -> list[str]:
    return [f"host-{number:04}" for number in range(first, first + count)]


def main() -> None:
    url, directory, first, count, seconds, *rest = sys.argv[1:]
    hosts = Hosts(url, directory, int(first), int(count), float(seconds), **options(rest))
    print("ready", flush=True)
    sys.stdin.read()
    answer = {"cpu": time.process_time(), "commits": hosts.commits}
    hosts.close()
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
