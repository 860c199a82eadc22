"""An empty database for each test: SQLite, or the one that VIRTFLOW_TEST_DATABASE names (its tables are emptied)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from virtflow.persistence.database import Database
from virtflow.persistence.models import metadata
from virtflow.persistence.models.jobs import entities, jobs
from virtflow.worker.boards.sql import SqlBoard


@pytest.fixture(scope="session")
def server_url() -> str | None:
    url = os.environ.get("VIRTFLOW_TEST_DATABASE")
    if url:
        database = Database(url)
        metadata.create_all(database.engine)
        database.close()
    return url


@pytest.fixture
def database(server_url: str | None, tmp_path: Path) -> Iterator[Database]:
    database = Database(server_url or f"sqlite:///{tmp_path / 'v.db'}")
    if server_url is None:
        metadata.create_all(database.engine)
    else:
        with database.transaction() as connection:
            connection.execute(jobs.delete())
            connection.execute(entities.delete())
    yield database
    database.close()


@pytest.fixture
def board(database: Database) -> Iterator[SqlBoard]:
    board = SqlBoard(database, max_attempts=3, patience=0.2)
    yield board
    board.close()
