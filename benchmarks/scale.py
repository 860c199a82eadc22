"""What limits scale: 1,000 simulated hosts, operations whose tasks sleep, a database with a past.

``python -m benchmarks scale`` runs a few hundred operations for each row; each row tells what one operation costs the
workers and the database's server, which is what decides how many more of either are needed for more.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks import filling
from benchmarks.databases import Databases, databases
from benchmarks.simulated import Simulated, configuration, registry
from benchmarks.table import Target, show, show_targets
from tests.lab.postgres import Postgres
from virtflow.persistence import schema
from virtflow.persistence.database import Database
from virtflow.persistence.models.engine import operations
from virtflow.worker.connecting import connect

_ROOT = Path(__file__).resolve().parent.parent
_TICKS = 100
"""Of /proc, per second."""
_PATIENCE = 240.0


@dataclass(frozen=True)
class Setting:
    """What is simulated. ``seconds`` is how long a segment sleeps."""

    database: str
    hosts: int
    past: int
    operations: int
    seconds: float
    threads: int = 64


@dataclass(frozen=True)
class Cost:
    """Of one operation. CPU in milliseconds; ``fsyncs`` of PostgreSQL's log."""

    rate: float
    scheduler: float
    hosts: float
    client: float
    server: float
    commits: float
    transactions: float
    fsyncs: float


def scale(rounds: int) -> list[Target]:
    """One row per setting. ``rounds`` scales how many operations each has."""
    count = 60 * rounds
    settings = [
        Setting("PostgreSQL", 10, 0, count, 0.2),
        Setting("PostgreSQL", 1000, 0, count, 0.2),
        Setting("PostgreSQL", 1000, 100_000, count, 0.2),
        Setting("PostgreSQL", 1000, 0, count, 2.0),
        Setting("SQLite", 1000, 0, count, 0.2),
    ]
    with databases() as available:
        costs = {each: simulate(available, each) for each in settings if each.database in available.kinds}
    head = ("database, hosts, past, segment", "op/s", "scheduler ms", "hosts ms", "client ms", "server ms")
    rows = [
        (
            f"{each.database}, {each.hosts:,}, {each.past:,}, {each.seconds:g} s",
            f"{cost.rate:.1f}",
            *(f"{value:.1f}" for value in (cost.scheduler, cost.hosts, cost.client, cost.server)),
            *(f"{value:.1f}" for value in (cost.commits, cost.transactions, cost.fsyncs)),
        )
        for each, cost in costs.items()
    ]
    show("CPU per operation", (*head, "commits", "transactions", "fsyncs"), rows)
    targets = []
    past, young = costs.get(settings[2]), costs.get(settings[1])
    if past is not None and young is not None:
        text = "server's CPU per operation after 100,000 operations against none"
        targets.append(Target(text, past.server / young.server, 1.5, most=True))
    show_targets(targets)
    return targets


def simulate(available: Databases, setting: Setting) -> Cost:
    """Submit all, one after the other, and wait for the last to end."""
    url = available.fresh(setting.database)
    database = Database(url)
    schema.upgrade(database)
    if setting.past:
        filling.fill(database, setting.past)
    server = Server(available.server if setting.database == "PostgreSQL" else None, database)
    with tempfile.TemporaryDirectory(prefix="vfb-") as directory:
        hosts = (url, f"{directory}/hosts", "0", str(setting.hosts), str(setting.seconds))
        with (
            _process("benchmarks.scale_hosts", *hosts) as there,
            _process("benchmarks.scale_worker", url, f"{directory}/worker", str(setting.threads)) as here,
        ):
            runner, _board = connect(configuration(url, directory, "client"), registry=registry())
            with runner:
                before, cpu, start = server.look(), time.process_time(), time.monotonic()
                for _ in range(setting.operations):
                    runner.submit(Simulated("placed", uuid.uuid4().hex))  # type: ignore[arg-type]
                client = time.process_time() - cpu
                _await_all(database)
                seconds, after = time.monotonic() - start, server.look()
            _expect_successes(database, setting.operations)
    database.close()
    found = {name: after[name] - before[name] for name in after}
    each = 1000 / setting.operations
    return Cost(
        setting.operations / seconds,
        _spent(here, "cpu") * each,
        _spent(there, "cpu") * each,
        client * each,
        found["cpu"] * each,
        (_spent(here, "commits") + _spent(there, "commits")) * each / 1000,
        found["transactions"] * each / 1000,
        found["fsyncs"] * each / 1000,
    )


def _spent(answer: dict[str, float], name: str) -> float:
    """Since it was ready."""
    return answer[name] - answer.get(f"{name} before", 0.0)


class Server:
    """PostgreSQL's counters, and the CPU time of its processes; nothing where there is no server."""

    def __init__(self, server: Postgres | None, database: Database) -> None:
        self._database = database
        self._pid = server.pid if server else None

    def look(self) -> dict[str, float]:
        if self._pid is None:
            return {"cpu": 0.0, "transactions": 0.0, "fsyncs": 0.0}
        with self._database.connect() as connection:
            query = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
            transactions = connection.exec_driver_sql(query).scalar_one()
            fsyncs = connection.exec_driver_sql("SELECT wal_sync FROM pg_stat_wal").scalar_one()
        return {"cpu": _cpu_below(self._pid), "transactions": float(transactions), "fsyncs": float(fsyncs)}


def _cpu_below(pid: int) -> float:
    """CPU seconds of the children of a process that are alive, and of those that it has waited for."""
    total = sum(map(int, _stat(pid)[13:15]))
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        total += sum(map(int, _stat(int(child))[11:13]))
    return total / _TICKS


def cpu_of(pid: int) -> float:
    """CPU seconds of a process; 0 when there is none."""
    return sum(map(int, _stat(pid)[11:13])) / _TICKS


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["0"] * 50


def _await_all(database: Database) -> None:
    query: Any = sa.select(sa.func.count()).where(operations.c.state.in_(("ACCEPTED", "RUNNING", "UNDOING")))
    give_up = time.monotonic() + _PATIENCE
    while time.monotonic() < give_up:
        with database.connect() as connection:
            if not connection.execute(query).scalar():
                return
        time.sleep(0.1)
    raise SystemExit(f"the operations have not ended within {_PATIENCE:g} s")


def _expect_successes(database: Database, count: int) -> None:
    """What fails is cheap, and would be taken for fast."""
    query = sa.select(sa.func.count()).where(operations.c.kind == "placed", operations.c.outcome == "SUCCESS")
    with database.connect() as connection:
        succeeded = connection.execute(query).scalar_one()
    if succeeded != count:
        raise SystemExit(f"{succeeded} of {count} operations succeeded")


@contextmanager
def _process(module: str, *arguments: str) -> Iterator[dict[str, float]]:
    """Runs during the block; afterwards what is yielded has its answer."""
    answer: dict[str, float] = {}
    command = [sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise SystemExit(f"{module} does not start")
        answer["cpu before"] = cpu_of(process.pid)
        yield answer
        out, _err = process.communicate(timeout=60)
        answer.update(json.loads(out))
    finally:
        process.kill()
        process.wait()
