"""A hundred thousand operations on a thousand hosts, as the books see them: ``python -m benchmarks.scale_books``.

The board, the scheduler, claims and decisions are the real ones; whatever happens on a host is a sleep, and there is no
engine: ``scale_campaign`` has that, and needs ten times the CPU. Two schedulers compete for hosts with room for two
guests each. Whether one of them is ever sold twice is looked at at each interval; at the end nothing may be held.

Like ``scale_campaign`` it may run at idle priority: what is measured is CPU time.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.scale import Server, cpu_of
from benchmarks.scale_hosts import CAPABILITIES, names
from benchmarks.simulated import SPEC
from tests.lab import postgres
from virtflow.persistence import schema
from virtflow.persistence.claim import owner_here
from virtflow.persistence.database import Database
from virtflow.persistence.hosts import HostRepository
from virtflow.persistence.models.inventory import allocations, hosts
from virtflow.persistence.models.jobs import jobs
from virtflow.persistence.posting import OPERATIONS, Posting
from virtflow.worker.boards.sql import SqlBoard

_ROOT = Path(__file__).resolve().parent.parent
_GUESTS_PER_HOST = 2
_BACKLOG = 5000
"""Jobs that wait at most."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale_books", description=__doc__)
    parser.add_argument("--operations", type=int, default=100_000, help="how many (default: %(default)s)")
    parser.add_argument("--hosts", type=int, default=1000, help="how many (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="longest time on a host (default: %(default)s)")
    parser.add_argument("--schedulers", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--interval", type=float, default=60.0, help="seconds per line (default: %(default)s)")
    arguments = parser.parse_args()
    with postgres.postgres() as server, ExitStack() as stack:
        url = server.create_database()
        database = Database(url)
        stack.callback(database.close)
        schema.upgrade(database)
        _register(database, arguments.hosts)
        schedulers = [
            _scheduler(stack, url, f"scheduler-{number}", arguments.seconds) for number in range(arguments.schedulers)
        ]
        return _run(arguments, database, Server(server, database), schedulers)


def _run(
    arguments: argparse.Namespace, database: Database, server: Server, schedulers: list[subprocess.Popen[str]]
) -> int:
    board = SqlBoard(database)
    posted = ended = 0
    before: dict[str, float] = {"ended": 0, "at": time.monotonic(), **_cpu(server, schedulers)}
    began, oversold, next_line = before, 0, time.monotonic() + arguments.interval
    while ended < arguments.operations:
        found = _look(database)
        while posted < arguments.operations and posted - (ended := posted - found["jobs"]) < _BACKLOG:
            board.post(Posting(OPERATIONS, str(uuid.uuid4())))
            posted, found["jobs"] = posted + 1, found["jobs"] + 1
        ended = posted - found["jobs"]
        oversold += found["oversold"]
        if time.monotonic() >= next_line or ended == arguments.operations:
            now = {"ended": ended, "at": time.monotonic(), **_cpu(server, schedulers)}
            _say(now, before, found | {"posted": posted})
            before, next_line = now, time.monotonic() + arguments.interval
        time.sleep(1)
    _say(before, began, {"the whole run": 1, "oversold": oversold})
    answers = [json.loads(each.communicate(timeout=60)[0]) for each in schedulers]
    last = _look(database)
    print(f"claims that another scheduler was quicker with: {sum(each['refused'] for each in answers)}; left: {last}")
    board.close()
    return 1 if oversold or last["held"] or last["jobs"] or last["used"] else 0


def _register(database: Database, count: int) -> None:
    repository = HostRepository(database)
    memory = _GUESTS_PER_HOST * SPEC["memory_mib"]
    for name in names(0, count):
        repository.register(name, 64, memory, 40000, capabilities=CAPABILITIES, worker=owner_here(name))


def _scheduler(stack: ExitStack, url: str, name: str, seconds: float) -> subprocess.Popen[str]:
    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="vfb-"))
    command = [sys.executable, "-m", "benchmarks.scale_books_worker", url, directory, name, str(seconds)]
    process = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    stack.callback(process.wait)
    stack.callback(process.kill)
    if process.stdout is None or process.stdout.readline().strip() != "ready":
        raise SystemExit(f"{name} does not start")
    return process


def _look(database: Database) -> dict[str, int]:
    """What the books say at one moment. ``oversold``: hosts that hold more than they have, or than is written down."""
    held = (
        sa.select(allocations.c.host, sa.func.sum(allocations.c.memory_mib).label("memory_mib"))
        .group_by(allocations.c.host)
        .subquery()
    )
    really = sa.func.coalesce(held.c.memory_mib, 0)
    wrong: Any = sa.or_(really > hosts.c.memory_mib * hosts.c.memory_ratio, really != hosts.c.memory_mib_used)
    joined = hosts.outerjoin(held, held.c.host == hosts.c.name)
    query = sa.select(
        sa.select(sa.func.count()).select_from(jobs).scalar_subquery().label("jobs"),
        sa.select(sa.func.count()).select_from(allocations).scalar_subquery().label("held"),
        sa.select(sa.func.sum(hosts.c.memory_mib_used)).scalar_subquery().label("used"),
        sa.select(sa.func.count()).select_from(joined).where(wrong).scalar_subquery().label("oversold"),
    )
    with database.connect() as connection:
        return {name: int(value) for name, value in connection.execute(query).one()._mapping.items()}


def _cpu(server: Server, schedulers: list[subprocess.Popen[str]]) -> dict[str, float]:
    return {"schedulers": sum(cpu_of(each.pid) for each in schedulers), "server": server.look()["cpu"]}


def _say(now: dict[str, float], before: dict[str, float], more: dict[str, int]) -> None:
    ended = now["ended"] - before["ended"]
    costs = {f"{name}_ms": round(1000 * (now[name] - before[name]) / max(ended, 1), 1) for name in _PARTS}
    rate = round(ended / (now["at"] - before["at"]), 1)
    line = {"ended": int(now["ended"]), "per_second": rate, **costs, **more}
    print(f"{datetime.datetime.now():%H:%M:%S} {json.dumps(line)}", flush=True)


_PARTS = ("schedulers", "server")


if __name__ == "__main__":
    sys.exit(main())
