"""How soon another worker goes on with what a killed one was at: from the SIGKILL to the task that is begun again.

The one that is killed has a process namespace of its own, as if it were on another machine: that it is gone can only be
told from its silence. (A process of the same machine is looked for, and needs no lease to be missed.)
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.databases import databases
from benchmarks.simulated import Simulated, configuration, registry
from benchmarks.table import Target, show, show_targets
from virtflow.persistence import schema
from virtflow.persistence.database import Database
from virtflow.persistence.models.base import now
from virtflow.persistence.models.engine import journal
from virtflow.worker.connecting import connect

_ROOT = Path(__file__).resolve().parent.parent
_LEASE = 5.0
_MORE = 2.0
_PATIENCE = 120.0
_APART = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


def takeover(rounds: int) -> list[Target]:
    """PostgreSQL, a lease of 5 s; each round with two workers that are new."""
    with databases() as available:
        kinds = [kind for kind in available.kinds if kind == "PostgreSQL"] if shutil.which("unshare") else []
        found = {kind: sorted(_round(available.fresh(kind)) for _ in range(rounds)) for kind in kinds}
    rows = [(f"{kind}, lease {_LEASE:g} s", f"{each[0]:.1f}", f"{each[-1]:.1f}") for kind, each in found.items()]
    show("Seconds from SIGKILL until another worker has begun the task again", ("", "soonest", "latest"), rows)
    text = f"takeover, lease {_LEASE:g} s, latest"
    targets = [Target(f"{text}, {kind}", each[-1], _LEASE + _MORE, most=True) for kind, each in found.items()]
    show_targets(targets)
    return targets


def _round(url: str) -> float:
    database = Database(url)
    schema.upgrade(database)
    with tempfile.TemporaryDirectory(prefix="vfb-") as directory:
        runner, _board = connect(configuration(url, directory, "client"), registry=registry())
        with runner, _worker(url, f"{directory}/doomed", "doomed", 3600, _APART) as doomed:
            operation = runner.submit(Simulated("noop", uuid.uuid4().hex))  # type: ignore[arg-type]
            _begun(database, operation.id, "doomed")
            with _worker(url, f"{directory}/heir", "heir", 0):
                time.sleep(_LEASE / 2)  # somewhere between two signs of life
                doomed.send_signal(signal.SIGKILL)
                killed = now()
                seconds = (_begun(database, operation.id, "heir") - killed) / 1_000_000
    database.close()
    return seconds


def _begun(database: Database, operation: str, host: str) -> int:
    """When the host's worker began the task First."""
    its = journal.c.flow == operation, journal.c.atom == "First", journal.c.event == "RUNNING", journal.c.host == host
    query: Any = sa.select(journal.c.at).where(*its)
    give_up = time.monotonic() + _PATIENCE
    while time.monotonic() < give_up:
        with database.connect() as connection:
            found: int | None = connection.execute(query).scalar()
        if found is not None:
            return found
        time.sleep(0.05)
    raise SystemExit(f"operation {operation} was not begun by {host} in {_PATIENCE:g} s")


@contextmanager
def _worker(
    url: str, directory: str, name: str, seconds: float, before: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    command = [*before, sys.executable, "-m", "benchmarks.takeover_worker", url, directory, name, str(seconds)]
    process = subprocess.Popen(
        [*command, f"jobboard__lease={_LEASE}"], cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise SystemExit("the worker does not start")
        yield process
    finally:
        process.kill()
        process.communicate()
