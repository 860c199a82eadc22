"""Values of the recording as the page carries them: each once, long texts cut."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_DEPTH = 24


class Values:
    """A table of values. ``limit`` is the length, in characters, at which a text is cut."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._places: dict[str, int] = {}
        self.table: list[Any] = []
        self.cut = 0
        """How many texts were cut."""

    def add(self, value: Any) -> int:
        """The place of the value in the table."""
        shown = self.shown(value)
        key = json.dumps(shown, sort_keys=False)
        place = self._places.setdefault(key, len(self.table))
        if place == len(self.table):
            self.table.append(shown)
        return place

    def text(self, text: str, limit: int | None = None) -> str:
        """The text, or its beginning and what is missing."""
        limit = limit or self._limit
        if len(text) <= limit:
            return text
        self.cut += 1
        return f"{text[:limit]} ... ({len(text) - limit:,} more characters)"

    def shown(self, value: Any, depth: int = 0) -> Any:
        """The value with its texts and lists cut."""
        if isinstance(value, str):
            return self.text(value)
        if depth > _DEPTH and isinstance(value, Mapping | list | tuple):
            self.cut += 1
            return "..."
        if isinstance(value, Mapping):
            return {str(key): self.shown(entry, depth + 1) for key, entry in self._some(list(value.items()))}
        if isinstance(value, list | tuple):
            return [self.shown(entry, depth + 1) for entry in self._some(list(value))]
        return value

    def _some(self, entries: list[Any]) -> list[Any]:
        if len(entries) > self._limit:
            self.cut += 1
        return entries[: self._limit]
