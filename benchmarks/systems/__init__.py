"""What is compared: each module prepares one system and gives back a function that runs flows of no-op steps.

``prepare(url, tasks)`` is called once, in a process of its own; what it returns is called with a number of flows and
with how many of them are in flight at once.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

RunFlows = Callable[[int, int], None]
Prepare = Callable[[str, int], RunFlows]

SYSTEMS = {
    "virtflow": "benchmarks.systems.virtflow_engine:prepare",
    "virtflow operations": "benchmarks.systems.virtflow_engine:prepare_operations",
    "TaskFlow in memory": "benchmarks.systems.taskflow_stock:prepare_in_memory",
    "TaskFlow SQLAlchemy": "benchmarks.systems.taskflow_stock:prepare",
    "DBOS": "benchmarks.systems.dbos_workflows:prepare",
    "bare commits": "benchmarks.systems.bare_commits:prepare",
    "shared bare commits": "benchmarks.systems.bare_commits:prepare_shared",
}


def prepare(system: str, url: str, tasks: int) -> RunFlows:
    """Bring one system up. Only its own libraries are imported."""
    module, function = SYSTEMS[system].split(":")
    prepared: Prepare = getattr(importlib.import_module(module), function)
    return prepared(url, tasks)
