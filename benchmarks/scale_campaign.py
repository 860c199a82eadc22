"""Very many operations, for as long as there is time: ``python -m benchmarks.scale_campaign --until 16:25``.

What ``scale`` simulates, at a length at which one sees whether an operation costs more when many have ended or wait. It
may run at idle priority (``chrt --idle 0``) on a machine that does other work: what is measured is CPU time. Leases and
silences are long, so that a process that gets no CPU for a while loses nothing, and PostgreSQL syncs nothing.

Every line of its log is one interval: what was submitted and ended, and what that cost in milliseconds of CPU.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import sqlalchemy as sa

from benchmarks.scale import Server, cpu_of
from tests.lab import postgres
from virtflow.persistence import schema
from virtflow.persistence.database import Database
from virtflow.persistence.models.engine import operations

_ROOT = Path(__file__).resolve().parent.parent
_PATIENT = ("database__busy_timeout=3600", "jobboard__lease=600", "worker__host_down_after=86400")
_BEAT = 60.0


@dataclass(frozen=True)
class Look:
    """Counters at one moment. CPU in seconds, memory in MiB."""

    at: float
    submitted: int
    ended: int
    succeeded: int
    cpu: dict[str, float]
    transactions: float
    memory: dict[str, int]
    database: int


class Campaign:
    """The processes, and what they have used."""

    def __init__(self, server: postgres.Postgres, url: str, arguments: argparse.Namespace, stack: ExitStack) -> None:
        self._url, self._arguments, self._stack = url, arguments, stack
        self._database = Database(url)
        self._server = Server(server, self._database)
        directory = arguments.directory
        self._processes = {
            "hosts": self._start(
                "benchmarks.scale_hosts",
                f"{directory}/hosts",
                "0",
                str(arguments.hosts),
                str(arguments.seconds),
                f"beat={_BEAT}",
                *_PATIENT,
            ),
            "worker": self._start("benchmarks.scale_worker", f"{directory}/worker", str(arguments.threads), *_PATIENT),
        }
        self._processes["client"] = self._start(
            "benchmarks.scale_submit", f"{directory}/client", str(arguments.operations), *_PATIENT
        )

    def look(self) -> Look:
        states = sa.select(operations.c.state, operations.c.outcome, sa.func.count()).group_by(
            operations.c.state, operations.c.outcome
        )
        with self._database.connect() as connection:
            counts = [(state, outcome, count) for state, outcome, count in connection.execute(states)]
            size = connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one()
        server = self._server.look()
        return Look(
            time.monotonic(),
            sum(count for _state, _outcome, count in counts),
            sum(count for state, _outcome, count in counts if state == "FINISHED"),
            sum(count for _state, outcome, count in counts if outcome == "SUCCESS"),
            {name: cpu_of(process.pid) for name, process in self._processes.items()} | {"server": server["cpu"]},
            server["transactions"],
            {name: _memory(process.pid) for name, process in self._processes.items()},
            size >> 20,
        )

    def dead(self) -> str | None:
        """Which process has ended though it should not have."""
        for name in ("hosts", "worker"):
            if self._processes[name].poll() is not None:
                return name
        return None

    def _start(self, module: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", module, self._url, *arguments]
        process = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise SystemExit(f"{module} does not start")
        return process


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale_campaign", description=__doc__)
    parser.add_argument("--operations", type=int, default=100_000, help="how many are submitted (default: %(default)s)")
    parser.add_argument("--hosts", type=int, default=1000, help="simulated hosts (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.2, help="what a segment sleeps (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=64, help="operations at a time (default: %(default)s)")
    parser.add_argument("--interval", type=float, default=60.0, help="seconds per line (default: %(default)s)")
    parser.add_argument("--until", metavar="HH:MM", help="time of day at which it ends, whatever is done")
    parser.add_argument("--directory", required=True, help="an empty directory for what the processes keep")
    parser.add_argument("--log", type=Path, required=True, help="file that lines are appended to")
    arguments = parser.parse_args()
    with postgres.postgres() as server, ExitStack() as stack, arguments.log.open("a") as log:
        url = server.create_database()
        database = Database(url)
        schema.upgrade(database)
        database.close()
        return _run(Campaign(server, url, arguments, stack), arguments, log)


def _run(campaign: Campaign, arguments: argparse.Namespace, log: TextIO) -> int:
    over = _clock(arguments.until)
    first = before = campaign.look()
    _write(log, f"{arguments.operations} operations, {arguments.hosts} hosts, {arguments.threads} at a time")
    while before.ended < arguments.operations and not over():
        time.sleep(arguments.interval)
        if dead := campaign.dead():
            _write(log, f"the {dead} process has died")
            return 1
        look = campaign.look()
        _write(log, _line(before, look))
        before = look
    _write(log, "the whole run: " + _line(first, before))
    return 0


def _line(before: Look, look: Look) -> str:
    ended, submitted = look.ended - before.ended, look.submitted - before.submitted
    spent = {name: look.cpu[name] - before.cpu[name] for name in look.cpu}
    each = {name: 1000 * seconds / ended if ended else 0.0 for name, seconds in spent.items()}
    values = {
        "submitted": look.submitted,
        "ended": look.ended,
        "not_success": look.ended - look.succeeded,
        "seconds": round(look.at - before.at),
        "ended_per_s": round(ended / (look.at - before.at), 1),
        "submitted_per_s": round(submitted / (look.at - before.at), 1),
        **{f"{name}_ms_per_ended": round(each[name], 1) for name in ("worker", "hosts", "server")},
        "client_ms_per_submitted": round(1000 * spent["client"] / submitted, 1) if submitted else 0.0,
        "transactions_per_ended": round((look.transactions - before.transactions) / ended, 1) if ended else 0.0,
        "cpu_s": {name: round(seconds, 1) for name, seconds in spent.items()},
        "memory_mib": look.memory,
        "database_mib": look.database,
    }
    return json.dumps(values)


def _clock(until: str | None) -> Callable[[], bool]:
    """Whether the time is over."""
    if until is None:
        return lambda: False
    hour, minute = map(int, until.split(":"))
    today = datetime.datetime.now().astimezone()
    end = today.replace(hour=hour, minute=minute, second=0).timestamp()
    end += 86400 if end < today.timestamp() else 0
    return lambda: time.time() >= end


def _memory(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = dict(line.split(":", 1) for line in status.splitlines())
    return int(lines["VmRSS"].split()[0]) >> 10 if "VmRSS" in lines else 0


def _write(log: TextIO, line: str) -> None:
    log.write(f"{datetime.datetime.now():%H:%M:%S} {line}\n")
    log.flush()


if __name__ == "__main__":
    sys.exit(main())
