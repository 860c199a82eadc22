"""A studio per test: real recordings of toy operations, on a migrated SQLite database."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from virtflow.persistence import schema
from virtflow.persistence.database import Database
from virtflow.testing.recordings import RecordingStudio


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Migrating takes longer than most tests: they copy this one."""
    path = tmp_path_factory.mktemp("migrated") / "virtflow.db"
    database = Database(f"sqlite:///{path}")
    schema.upgrade(database)
    database.close()
    return path


@pytest.fixture
def studio(migrated_file: Path, tmp_path: Path) -> Iterator[RecordingStudio]:
    shutil.copy(migrated_file, tmp_path / "virtflow.db")
    with RecordingStudio(tmp_path) as made:
        yield made
