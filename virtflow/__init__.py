"""virtflow: virtual-machine operations on libvirt hosts as TaskFlow graphs of small tasks, each revertible."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from virtflow.engine.runner import Runner
    from virtflow.requests import DeleteRequest, SpawnRequest

__version__ = "0.1.0"
__all__ = ["DeleteRequest", "Runner", "SpawnRequest", "__version__"]

_HOMES = {
    "Runner": "virtflow.engine.runner",
    "SpawnRequest": "virtflow.requests",
    "DeleteRequest": "virtflow.requests",
}


def __getattr__(name: str) -> Any:
    """Import the public classes when they are first asked for: ``import virtflow`` itself costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'virtflow' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
