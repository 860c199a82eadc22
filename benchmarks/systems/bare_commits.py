"""The limit: a row a step, by the database's own driver, with nothing around it. A commit for each, or one for all
flows in flight."""

from __future__ import annotations

import sqlite3
from typing import Any

from benchmarks.systems import RunFlows

_ROW = "INSERT INTO steps (flow, step, result) VALUES (1, 1, 'x')"


def prepare(url: str, tasks: int) -> RunFlows:
    connection = _connect(url)
    connection.execute("CREATE TABLE steps (flow INTEGER, step INTEGER, result TEXT)")

    def run(flows: int, in_flight: int) -> None:  # noqa: ARG001 - one connection
        for _ in range(flows * tasks):
            connection.execute(_ROW)

    return run


def prepare_shared(url: str, tasks: int) -> RunFlows:
    connection = _connect(url)
    connection.execute("CREATE TABLE steps (flow INTEGER, step INTEGER, result TEXT)")

    def run(flows: int, in_flight: int) -> None:
        rows = ", ".join(["(1, 1, 'x')"] * in_flight)
        for _ in range(flows * tasks // in_flight):
            connection.execute(f"INSERT INTO steps (flow, step, result) VALUES {rows}")

    return run


def _connect(url: str) -> Any:
    """In autocommit: each statement is a transaction."""
    if url.startswith("sqlite:///"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return connection
    import psycopg

    return psycopg.connect(url.replace("postgresql+psycopg:", "postgresql:"), autocommit=True)
