"""Runners for toy operations, each on a migrated SQLite database of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.unit.engine.toys import World
from virtflow.config import load
from virtflow.engine.runner import Runner
from virtflow.flows.registry import Registry
from virtflow.persistence import schema
from virtflow.persistence.database import Database
from virtflow.persistence.secrets import SecretStore, load_or_create_key


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Migrating takes longer than most tests: they copy this one."""
    path = tmp_path_factory.mktemp("migrated") / "virtflow.db"
    database = Database(f"sqlite:///{path}")
    schema.upgrade(database)
    database.close()
    return path


@pytest.fixture
def world() -> World:
    return World()


class MakeRunner(Protocol):
    def __call__(self, registry: Registry, **options: Any) -> Runner: ...


@pytest.fixture
def make_runner(migrated_file: Path, tmp_path: Path, world: World) -> Iterator[MakeRunner]:
    """``make_runner(registry, on_event=..., **{"engine.threads": 2})``; all on the same database and world."""
    shutil.copy(migrated_file, tmp_path / "virtflow.db")

    def make(registry: Registry, *, on_event: Any = None, dispatch: Any = None, **settings: Any) -> Runner:
        options = {"state_dir": str(tmp_path), "host": "h0", "engine.revert_backoff": "0", **settings}
        config = load(overrides=options, env={})
        store = SecretStore(runner_database := Database(config.database.url), load_or_create_key(tmp_path / "key"))
        stack.callback(runner_database.close)
        services = {"world": world, "secrets": store}
        runner = Runner(config, on_event=on_event, services=services, registry=registry, dispatch=dispatch)
        return stack.enter_context(runner)

    with ExitStack() as stack:
        yield make
