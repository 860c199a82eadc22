"""DBOS: a workflow that calls one step after another. SQLite in WAL mode, which is its faster way.

Several in flight are so many threads that each run one after the other: that keeps it busier than starting a batch of
workflows and waiting for all of them.
"""

from __future__ import annotations

import logging
import sqlite3
from concurrent.futures import ThreadPoolExecutor

from dbos import DBOS, DBOSConfig

from benchmarks.systems import RunFlows


def prepare(url: str, tasks: int) -> RunFlows:
    if url.startswith("sqlite:///"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            connection.execute("PRAGMA journal_mode=WAL")  # stays with the file; synchronous is FULL by default
    config: DBOSConfig = {
        "name": "benchmark",
        "system_database_url": url,
        "log_level": "ERROR",
    }
    DBOS(config=config)

    @DBOS.step()
    def step(x: int) -> int:
        return x

    @DBOS.workflow()
    def line(x: int) -> int:
        for _ in range(tasks):
            x = step(x)
        return x

    logging.disable(logging.WARNING)
    DBOS.launch()

    def run_one(_number: int) -> None:
        assert line(1) == 1

    def run(flows: int, in_flight: int) -> None:
        with ThreadPoolExecutor(in_flight) as pool:
            list(pool.map(run_one, range(flows)))

    return run
