"""Which backends a volume can be made on: those of hosts that are up, and nobody's who has no worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from virtflow.config import load
from virtflow.engine.services import Services
from virtflow.persistence import schema
from virtflow.persistence.database import Database
from virtflow.persistence.hosts import HostRepository
from virtflow.persistence.volume_backends import Backend, BackendRepository
from virtflow.tasks.volume_choice import BackendChoice

FIRST: dict[str, Any] = {"attempt": 1, "tried": {}}
SPEC: dict[str, Any] = {"size_gib": 1, "zone": None, "backend": None, "wanted": {}}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'v.db'}")
    schema.upgrade(database)
    yield database
    database.close()


def choice(database: Database, tmp_path: Path, mode: str) -> BackendChoice:
    given = {"engine.mode": mode, "host": "third", "state_dir": str(tmp_path)}
    found: BackendChoice = Services(load(overrides=given, env={}), database)["backend_choice"]
    return found


def test_with_workers_who_asks_offers_nothing_of_his_own(database: Database, tmp_path: Path) -> None:
    known = BackendRepository(database).list
    choice(database, tmp_path, "workers").refresh()
    assert choice(database, tmp_path, "workers").choose(SPEC, "op", FIRST).chosen is None
    assert known() == []
    choice(database, tmp_path, "embedded").refresh()
    assert [each.name for each in known()] == ["third@local"]


def test_a_backend_is_down_with_its_host(database: Database, tmp_path: Path) -> None:
    hosts, asked = HostRepository(database), choice(database, tmp_path, "workers")
    for name in ("h1", "h2"):
        known = Backend(name=f"{name}@local", host=name, driver="file", zone="nova", total_gib=10)
        BackendRepository(database).register(known)
    unknown = asked.choose(SPEC, "op", FIRST)
    assert (unknown.chosen, unknown.refused["h1@local"]) == (None, "down: it was never registered")
    hosts.register("h2", 1, 1, 1, worker="worker of h2")
    assert asked.choose(SPEC, "op", FIRST).chosen == "h2@local"
    assert not asked.other_host_fits(SPEC, "volume", {"h2@local": "it failed"})
    hosts.sign_off("h2", "worker of h2")
    signed_off = asked.choose(SPEC, "op", FIRST)
    assert (signed_off.chosen, signed_off.refused["h2@local"]) == (None, "down: no worker runs on it")
