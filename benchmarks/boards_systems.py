"""The job boards and queues that are compared: each posts jobs that do nothing, and takes them one after the other.

Every one is set so that a job survives the death of its worker (claimed or acknowledged late). Each is used in a
process of its own, and only its own libraries are imported there.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

Finished = Callable[[], None]


class System(ABC):
    """One process's access to a board."""

    @abstractmethod
    def post(self, count: int) -> None:
        """Post that many jobs, one after the other, each durable before the next."""

    @abstractmethod
    def work(self, finished: Finished, stop: threading.Event) -> None:
        """Take jobs until told to stop; call ``finished`` after each."""

    @abstractmethod
    def left(self) -> int:
        """How many jobs are not finished."""

    def fill(self, count: int) -> None:
        """Post that many, as fast as it goes."""
        self.post(count)

    @abstractmethod
    def close(self) -> None:
        """Give connections back."""


class VirtflowBoard(System):
    """Ours: ``kind`` is the backend."""

    def __init__(self, kind: str, url: str) -> None:
        from virtflow.config import load
        from virtflow.persistence import schema
        from virtflow.persistence.database import Database
        from virtflow.worker.boards.board import OPERATIONS
        from virtflow.worker.boards.opening import open_board

        options = {"jobboard.backend": kind, "state_dir": f"/tmp/vfboards-{os.getpid()}"}
        options |= {"database.url": url} if kind == "sql" else {"jobboard.url": url}
        config = load(overrides=options, env={})
        self._database = Database(config.database.url)
        if kind == "sql":
            schema.upgrade(self._database)
        self.board = open_board(config, self._database)
        self._topics = [OPERATIONS]
        self._owner = f"bench-{os.getpid()}"

    def posting(self) -> Any:
        from virtflow.worker.boards.board import Posting

        return Posting(self._topics[0], str(uuid.uuid4()))

    def post(self, count: int) -> None:
        for _ in range(count):
            self.board.post(self.posting())

    def fill(self, count: int) -> None:
        repository: Any = getattr(self.board, "repository", None)
        if repository is None:
            self.post(count)
            return
        from virtflow.persistence.job_statements import JobStatements
        from virtflow.persistence.writer import Writer

        statements = JobStatements(writer := Writer(self._database))
        while count > 0:
            batch = [item for _ in range(min(count, 1000)) for item in statements.post(self.posting())]
            writer.write(batch)
            count -= 1000
        writer.close()

    def work(self, finished: Finished, stop: threading.Event) -> None:
        while not stop.is_set():
            job = self.board.claim(self._topics, self._owner, 60)
            if job is None:
                self.board.wait(self._topics, 0.2)
            elif self.board.finish(job):
                finished()

    def claims(self, count: int) -> list[float]:
        """Seconds that each of that many claims took."""
        seconds = []
        for _ in range(count):
            start = time.perf_counter()
            job = self.board.claim(self._topics, self._owner, 60)
            seconds.append(time.perf_counter() - start)
            assert job is not None
            self.board.finish(job)
        return seconds

    def heard(self, count: int) -> list[float]:
        """When each of that many jobs was claimed by who slept until it was posted (CLOCK_MONOTONIC)."""
        times: list[float] = []
        while len(times) < count:
            job = self.board.claim(self._topics, self._owner, 60)
            if job is None:
                self.board.wait(self._topics, 5)
                continue
            times.append(time.monotonic())
            self.board.finish(job)
        return times

    def left(self) -> int:
        return len(self.board.jobs(limit=1_000_000))

    def close(self) -> None:
        self.board.close()
        self._database.close()


class TaskflowBoard(System):
    """TaskFlow's board of that kind with its conductor, whose jobs run no engine: what is measured is the board."""

    def __init__(self, kind: str, url: str) -> None:
        from virtflow import eventletless  # noqa: F401

        from taskflow.jobs import backends  # isort: skip

        server = urlsplit(url)
        address = (
            {"hosts": server.netloc, "check_compatible": False}
            if kind == "zookeeper"
            else {"host": server.hostname, "port": server.port}
        )
        self._board = backends.fetch("bench", {"board": kind, **address})
        self._board.connect()

    def post(self, count: int) -> None:
        for _ in range(count):
            self._board.post("job", details={"operation": str(uuid.uuid4())})

    def work(self, finished: Finished, stop: threading.Event) -> None:
        from taskflow.conductors.backends.impl_blocking import BlockingConductor

        class Idle(BlockingConductor):  # type: ignore[misc]
            def _dispatch_job(self, _job: Any) -> bool:
                return True

        conductor = Idle(f"bench-{os.getpid()}", self._board, wait_timeout=0.05)
        conductor.notifier.register("job_consumed", lambda *_args, **_about: finished())
        thread = threading.Thread(target=conductor.run, daemon=True)
        thread.start()
        stop.wait()
        conductor.stop()
        thread.join(30)

    def left(self) -> int:
        return len(list(self._board.iterjobs(ensure_fresh=True)))

    def close(self) -> None:
        self._board.close()


class Celery(System):
    """On Redis; late acknowledgement, nothing fetched ahead, one job at a time in the process itself."""

    def __init__(self, url: str) -> None:
        import celery
        import redis

        self._app = celery.Celery("bench", broker=url)
        options = {"task_acks_late": True, "worker_prefetch_multiplier": 1, "task_ignore_result": True}
        self._app.conf.update(**options, worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)

        def nothing(operation: str) -> None:
            """The job."""

        self._task = self._app.task(nothing, name="bench")
        self._redis = redis.Redis.from_url(url)

    def post(self, count: int) -> None:
        for _ in range(count):
            self._task.delay(str(uuid.uuid4()))

    def work(self, finished: Finished, stop: threading.Event) -> None:
        from celery.contrib.testing.worker import start_worker
        from celery.signals import task_postrun

        def tell(**_about: Any) -> None:
            finished()

        task_postrun.connect(tell, weak=False)
        options = {"pool": "solo", "perform_ping_check": False, "shutdown_timeout": 30}
        with start_worker(self._app, concurrency=1, **options):
            stop.wait()
        task_postrun.disconnect(tell)

    def left(self) -> int:
        waiting, unacknowledged = self._redis.llen("celery"), self._redis.hlen("unacked")
        return int(waiting) + int(unacknowledged)

    def close(self) -> None:
        self._app.close()


class Procrastinate(System):
    """On PostgreSQL; one job at a time."""

    def __init__(self, url: str) -> None:
        import procrastinate

        self._url = url.replace("+psycopg", "")
        self._app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=self._url))
        self._app.open()
        with suppress(procrastinate.exceptions.ConnectorException):  # it is there
            self._app.schema_manager.apply_schema()

    def post(self, count: int) -> None:
        job = self._app.configure_task("bench", allow_unknown=True)
        for _ in range(count):
            job.defer(operation=str(uuid.uuid4()))

    def work(self, finished: Finished, stop: threading.Event) -> None:
        import procrastinate

        async def run() -> None:
            app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=self._url))

            @app.task(name="bench")
            async def job(operation: str) -> None:  # noqa: ARG001
                finished()

            async with app.open_async():
                worker = asyncio.create_task(app.run_worker_async(concurrency=1, install_signal_handlers=False))
                await asyncio.to_thread(stop.wait)
                worker.cancel()
                with suppress(asyncio.CancelledError):
                    await worker

        asyncio.run(run())

    def left(self) -> int:
        query = "SELECT count(*) AS n FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"
        return int(self._app.connector.execute_query_one(query)["n"])

    def close(self) -> None:
        self._app.close()


SYSTEMS: dict[str, Callable[[str], System]] = {
    "virtflow sql": lambda url: VirtflowBoard("sql", url),
    "virtflow redis": lambda url: VirtflowBoard("redis", url),
    "virtflow zookeeper": lambda url: VirtflowBoard("zookeeper", url),
    "virtflow etcd": lambda url: VirtflowBoard("etcd", url),
    "TaskFlow redis": lambda url: TaskflowBoard("redis", url),
    "TaskFlow zookeeper": lambda url: TaskflowBoard("zookeeper", url),
    "Celery": Celery,
    "procrastinate": Procrastinate,
}
