"""How long a command takes that only says something, against what it cannot do without."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.table import Target, show, show_targets

_BASE = "python -c 'import sqlalchemy'"
_VIRTFLOW = str(Path(sys.executable).with_name("virtflow"))
_COMMANDS = {
    _BASE: [sys.executable, "-c", "import sqlalchemy"],
    "virtflow --help": [_VIRTFLOW, "--help"],
    "virtflow operation list": [_VIRTFLOW, "operation", "list"],
}


def startup(rounds: int) -> list[Target]:
    """Wall time of commands that neither libvirt nor TaskFlow is needed for."""
    with tempfile.TemporaryDirectory(prefix="vfb-") as directory:
        env = {**os.environ, "VIRTFLOW_STATE_DIR": directory}
        subprocess.run([_VIRTFLOW, "db", "upgrade"], env=env, check=True, capture_output=True)
        for command in _COMMANDS.values():
            subprocess.run(command, env=env, check=True, capture_output=True)  # byte code
        turns = [{name: _seconds(command, env) for name, command in _COMMANDS.items()} for _ in range(4 * rounds)]
    ratios = {name: statistics.median(turn[name] / turn[_BASE] for turn in turns) for name in _COMMANDS}
    rows = [
        (name, f"{statistics.median(turn[name] for turn in turns) * 1000:.0f}", f"{ratio:.2f}x")
        for name, ratio in ratios.items()
    ]
    show("Start of a command", ("", "ms", f"to {_BASE}"), rows)
    targets = [Target(f"{name} against {_BASE}", ratio, 2.0, most=True) for name, ratio in ratios.items()][1:]
    show_targets(targets)
    return targets


def _seconds(command: list[str], env: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, env=env, check=True, capture_output=True)
    return time.perf_counter() - start
