"""Workers that are started in milliseconds: forked by a process that has imported everything and opened nothing.

``python -m virtflow.testing.worker_forks`` reads lines of JSON: ``{"arguments": [...], "environment": {...}, "log":
PATH, "network": PATH or null}``, and answers each with the pid of a ``virtflow`` process with these arguments. All end
when its input does.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from virtflow.testing.networks import enter

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_IMPORTED = (
    "virtflow.cli.main",
    "virtflow.cli.worker",
    "virtflow.worker.service",
    "virtflow.engine.services",
    "virtflow.engine.segment_host",
    "virtflow.hypervisor.hypervisor",
    "virtflow.hypervisor.inventory",
    "virtflow.network.taps",
    "virtflow.images.cache",
    "virtflow.images.catalog",
    "virtflow.metadata.config_drive",
    "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.pysqlite",
)


class WorkerForks:
    """The process that forks, and its end."""

    def __init__(self) -> None:
        program = [sys.executable, "-P", "-m", __name__]
        self._process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(
        self, arguments: Sequence[str], environment: Mapping[str, str], log: Path, network: Path | None = None
    ) -> int:
        """Run ``virtflow`` with these arguments, in the network namespace if one is given; its pid.

        It ends with this object's process at the latest.
        """
        line: dict[str, object] = {"arguments": list(arguments), "environment": dict(environment), "log": str(log)}
        line["network"] = None if network is None else str(network)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(line), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def main() -> None:
    """Serve until the input ends."""
    for name in _IMPORTED:
        try:
            importlib.import_module(name)
        except ImportError:
            continue  # of a driver that is not installed
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    # QEMU goes to the background and becomes an orphan: it is inherited, and buried at once, by this process.
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while line := sys.stdin.readline():
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if asked["network"] is not None:
                enter(Path(asked["network"]))
            _become(asked["arguments"], asked["environment"], asked["log"])
        print(pid, flush=True)


def _become(arguments: list[str], environment: dict[str, str], log: str) -> None:
    """Never returns: what this process does at its end is not the worker's business."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
    silence, output = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for source, target in ((silence, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    for name in [name for name in os.environ if name.startswith("VIRTFLOW_")]:
        del os.environ[name]
    os.environ.update(environment)
    sys.argv = ["virtflow", *arguments]
    from virtflow.cli.main import main as virtflow

    code = 1
    try:
        code = virtflow(arguments)
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
