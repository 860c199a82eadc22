"""A decision with its reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_TOLD = 5
"""Hosts that an error message tells of one by one."""


@dataclass(frozen=True, slots=True)
class Considered:
    """A host that was looked at: the filter that refused it and why, or its weight."""

    host: str
    refused_by: str | None = None
    reason: str | None = None
    weight: float | None = None


@dataclass(frozen=True)
class Decision:
    """``alternates`` are the next best, best first. ``considered`` has every host, in the order it was given in."""

    chosen: str | None
    alternates: tuple[str, ...] = ()
    considered: tuple[Considered, ...] = ()

    @property
    def passed(self) -> list[Considered]:
        """Hosts that no filter refused, heaviest first."""
        found = [each for each in self.considered if each.refused_by is None]
        return sorted(found, key=lambda each: -(each.weight or 0.0))

    @property
    def refused(self) -> dict[str, str]:
        """Why not, by host."""
        return {each.host: each.reason or "" for each in self.considered if each.refused_by is not None}

    def in_words(self) -> str:
        """Why no host is left, in one line: each of a few hosts, the filters of more."""
        refused = [each for each in self.considered if each.refused_by is not None]
        if not refused:
            return "no host is registered"
        told = [f"{each.host}: {each.reason}" for each in refused[:_TOLD]]
        more = Counter(each.refused_by for each in refused[_TOLD:])
        if more:
            told.append(f"{more.total()} more by " + ", ".join(f"{name} ({n})" for name, n in more.most_common()))
        return "; ".join(told)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data, compact: there is one of these for every placement, with every host in it."""
        return {
            "chosen": self.chosen,
            "alternates": list(self.alternates),
            "passed": {each.host: round(each.weight or 0.0, 4) for each in self.passed},
            "refused": {each.host: [each.refused_by, each.reason] for each in self._refused()},
        }

    def _refused(self) -> Iterator[Considered]:
        return (each for each in self.considered if each.refused_by is not None)
