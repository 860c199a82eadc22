"""The command line in this process, on a state directory of its own, with or without recorded operations."""

from __future__ import annotations

import io
import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from virtflow.cli.main import Virtflow
from virtflow.persistence import schema
from virtflow.persistence.database import Database
from virtflow.persistence.flavors import Flavor, FlavorRepository
from virtflow.persistence.instances import Instance, InstanceRepository
from virtflow.persistence.models.engine import atoms, claims, flows, journal, ledger, logbooks, operations
from virtflow.persistence.networks import Network, NetworkRepository
from virtflow.persistence.quotas import QuotaRepository

EPOCH = 1_790_000_000_000_000
"""A moment in September 2026, in microseconds."""
SECOND = 1_000_000
OK, BAD = "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000002"
INSTANCE, NETWORK = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000001"


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


Cli = Callable[..., Answer]


@pytest.fixture
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory that is not there yet, and nothing of this machine's own configuration."""
    for name in ("VIRTFLOW_STATE_DIR", "VIRTFLOW_DATABASE__URL", "CLIFF_FIT_WIDTH", "CLIFF_MAX_TERM_WIDTH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("virtflow.config.loading.SYSTEM_FILE", tmp_path / "none.conf")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    return tmp_path / "state"


@pytest.fixture
def cli(state_dir: Path) -> Iterator[Cli]:
    root = logging.getLogger()
    before = root.level

    def run(*argv: str, **streams: Any) -> Answer:
        out, err = streams.get("out") or io.StringIO(), streams.get("err") or io.StringIO()
        code = Virtflow(out, err).run(["--state-dir", str(state_dir), "--set", "host=kvm-01", *argv])
        return Answer(code, out.getvalue(), err.getvalue())

    yield run
    root.setLevel(before)
    for handler in [handler for handler in root.handlers if handler.get_name() == "virtflow"]:
        root.removeHandler(handler)
        handler.close()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Migrating takes longer than most tests: once, then copied."""
    path = tmp_path_factory.mktemp("migrated") / "virtflow.db"
    database = Database(f"sqlite:///{path}")
    schema.upgrade(database)
    database.close()
    return path


@pytest.fixture
def database(migrated: Path, state_dir: Path) -> Iterator[Database]:
    """The database of the state directory, migrated and empty."""
    state_dir.mkdir()
    shutil.copy(migrated, state_dir / "virtflow.db")
    database = Database(f"sqlite:///{state_dir / 'virtflow.db'}")
    yield database
    database.close()


@pytest.fixture
def seeded(database: Database) -> Database:
    """Two operations (one with a debt), an instance with a port, a network, a flavor, charges."""
    with database.transaction() as connection:
        _operation(connection, OK, 1, "instance:web1", "SUCCESS", None)
        _operation(connection, BAD, 2, "instance:web2", "REVERTED_WITH_DEBT", "DefineDomain: no free memory")
        _flow(connection, OK, [("ReserveQuota", ["RUNNING", "SUCCESS"]), ("FetchBase", ["RUNNING", "SUCCESS"])])
        undone = ["RUNNING", "SUCCESS", "REVERTING", "REVERTED"]
        _flow(connection, BAD, [("ReserveQuota", undone), ("DefineDomain", ["RUNNING", "FAILURE"])])
        row: dict[str, Any] = {"operation": BAD, "flow": BAD, "task": "PlugVifs", "kind": "tap", "identity": "vf1"}
        row |= {"host": "kvm-01", "state": "DEBT", "attempts": 3, "created_at": EPOCH, "updated_at": EPOCH}
        connection.execute(sa.insert(ledger).values(**row))
    FlavorRepository(database).create(Flavor("small", 1, 512, 5, {"tier": "test"}))
    network = Network(
        id=NETWORK,
        name="blue",
        cidr="10.0.0.0/24",
        gateway="10.0.0.1",
        bridge="br0",
        created_at=EPOCH,
        dns=("10.0.0.2",),
    )
    networks = NetworkRepository(database)
    networks.create(network)
    size: dict[str, Any] = {"vcpus": 1, "memory_mib": 512, "disk_gib": 5}
    instance = Instance(
        uuid=INSTANCE, name="web1", project="default", host="kvm-01", vm_state="ACTIVE", image_name="debian-12",
        flavor="small", operation=OK, created_at=EPOCH, launched_at=EPOCH + 5 * SECOND, meta={"role": "web"}, **size,
    )  # fmt: skip
    InstanceRepository(database).insert(instance)
    networks.allocate_port(
        "cccccccc-0000-4000-8000-000000000001", network, instance=INSTANCE, operation=OK, host="kvm-01",
        requested_address="10.0.0.9", pick=lambda _used: "", mac="52:54:00:00:00:01", tap="vfcccccccc000",
    )  # fmt: skip
    quotas = QuotaRepository(database, {})
    quotas.reserve(INSTANCE, OK, "default", {"instances": 1, **size})
    quotas.commit(INSTANCE, OK)
    quotas.set_limit("default", "vcpus", -1)
    return database


def _operation(connection: sa.Connection, uuid: str, number: int, target: str, outcome: str, error: str | None) -> None:
    row: dict[str, Any] = {"id": uuid, "number": number, "kind": "spawn", "version": 1, "target": target, "request": {}}
    row |= {"project": "default", "state": "FINISHED", "outcome": outcome, "error": error, "cancel_requested": 0}
    start = EPOCH + number * 60 * SECOND
    row |= {"created_at": start, "started_at": start, "finished_at": start + 5 * SECOND}
    connection.execute(sa.insert(operations).values(**row))
    connection.execute(sa.insert(logbooks).values(uuid=uuid, name="spawn", created_at=start))
    connection.execute(sa.insert(claims).values(subject=uuid, epoch=1, owner=None, touched_at=start))


def _flow(connection: sa.Connection, operation: str, tasks: list[tuple[str, list[str]]]) -> None:
    connection.execute(sa.insert(flows).values(uuid=operation, logbook=operation, created_at=EPOCH, name="spawn"))
    sequence = 0
    for position, (name, events) in enumerate(tasks):
        uuid = f"{operation[:35]}{chr(ord('a') + position)}"
        values: dict[str, Any] = {"uuid": uuid, "flow": operation, "position": position, "kind": "task", "name": name}
        connection.execute(sa.insert(atoms).values(**values, state=events[-1], meta={}))
        for event in events:
            sequence += 1
            data = {"failure": {"exception_str": "no free memory"}} if event == "FAILURE" else None
            at = EPOCH + sequence * 125_000
            line = {"flow": operation, "sequence": sequence, "atom": name, "event": event, "attempt": 1, "at": at}
            connection.execute(sa.insert(journal).values(**line, epoch=1, host="kvm-01", data=data))
