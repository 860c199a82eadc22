"""The engine's fixtures: runners for toy operations."""

from __future__ import annotations

from tests.unit.engine.conftest import MakeRunner, make_runner, migrated_file, world

__all__ = ["MakeRunner", "make_runner", "migrated_file", "world"]
