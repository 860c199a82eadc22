"""A migrated, empty database for each test: SQLite, or the one that VIRTFLOW_TEST_DATABASE names (it is emptied)."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import pytest
import sqlalchemy as sa

from virtflow.persistence import schema
from virtflow.persistence.database import Database
from virtflow.persistence.models import metadata


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> str | Path:
    """The server to use, or a SQLite file to copy: migrating takes longer than most tests."""
    url = os.environ.get("VIRTFLOW_TEST_DATABASE")
    path = tmp_path_factory.mktemp("migrated") / "v.db"
    database = Database(url or f"sqlite:///{path}")
    if url:
        with database.transaction() as connection:
            connection.execute(sa.text("DROP SCHEMA public CASCADE"))
            connection.execute(sa.text("CREATE SCHEMA public"))
    schema.upgrade(database)
    database.close()
    return url or path


@pytest.fixture
def database(migrated: str | Path, tmp_path: Path) -> Iterator[Database]:
    if isinstance(migrated, Path):
        shutil.copy(migrated, tmp_path / "v.db")
        database = Database(f"sqlite:///{tmp_path / 'v.db'}")
    else:
        database = Database(migrated)
        with database.transaction() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(table.delete())
    yield database
    database.close()


class Race(Protocol):
    def __call__(self, attempts: list[Any]) -> tuple[list[Any], list[Exception]]: ...


@pytest.fixture
def race() -> Race:
    """Calls all attempts at once, one thread each; gives what they returned and what they raised."""

    def run(attempts: list[Any]) -> tuple[list[Any], list[Exception]]:
        barrier = threading.Barrier(len(attempts), timeout=30)

        def call(attempt: Any) -> Any:
            barrier.wait()
            return attempt()

        with ThreadPoolExecutor(len(attempts)) as pool:
            futures = [pool.submit(call, attempt) for attempt in attempts]
        raised = [error for future in futures if isinstance(error := future.exception(), Exception)]
        return [future.result() for future in futures if future.exception() is None], raised

    return run
