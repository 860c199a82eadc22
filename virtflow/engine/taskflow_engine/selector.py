"""Finds what can run or be reverted next, without looking where nothing can be ready."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from taskflow import states
from taskflow.engines.action_engine import compiler, deciders, selector

_FINISHED = (states.SUCCESS, states.IGNORE)
_UNDONE = (states.PENDING, states.REVERTED, states.IGNORE)
_NO_DECIDER = deciders.NoOpDecider()


class FlowSelector(selector.Selector):
    """A task behind an unfinished one cannot be ready to run, nor one before a task that is still to be reverted."""

    def _browse_atoms_for_execute(self, atom: Any = None) -> Iterator[tuple[Any, Any]]:
        graph = self._execution_graph
        candidates = self._runtime.iterate_nodes(compiler.ATOMS) if atom is None else self._near(atom, graph._succ)
        for candidate in candidates:
            if self._ready_to_execute(candidate):
                edge_deciders = self._runtime.fetch_edge_deciders(candidate)
                yield candidate, deciders.IgnoreDecider(candidate, edge_deciders) if edge_deciders else _NO_DECIDER

    def _browse_atoms_for_revert(self, atom: Any = None) -> Iterator[tuple[Any, Any]]:
        graph = self._execution_graph
        candidates = self._runtime.iterate_nodes(compiler.ATOMS) if atom is None else self._near(atom, graph._pred)
        for candidate in candidates:
            if self._ready_to_revert(candidate):
                yield candidate, _NO_DECIDER

    def _near(self, atom: Any, neighbours: Mapping[Any, Any]) -> Iterator[Any]:
        """Atoms ahead in one direction; what lies behind one that is not through is not looked at.

        ``iter_next_atoms`` is asked again for each atom that gets through, so nothing is missed.
        """
        graph = self._execution_graph
        through = _FINISHED if neighbours is graph._succ else _UNDONE
        seen: set[Any] = set()
        ahead = list(neighbours[atom])
        for node in ahead:
            if node in seen:
                continue
            seen.add(node)
            kind = graph._node[node]["kind"]
            if kind in compiler.ATOMS:
                yield node
                if self._storage.detail(node.name).state not in through:
                    continue
                if kind == compiler.RETRY and through is _UNDONE:
                    continue  # a retry decides about what is before it
            ahead.extend(neighbours[node])

    def _ready_to_execute(self, atom: Any) -> bool:
        own = self._storage.detail(atom.name)
        if own.intention != states.EXECUTE:
            return False
        if not self._runtime.check_atom_transition(atom, own.state, states.RUNNING):
            return False
        for detail in self._connected(atom, self._execution_graph._pred, stop_at=(states.SUCCESS,)):
            if detail.state not in _FINISHED or detail.intention not in (states.EXECUTE, states.IGNORE):
                return False
        return True

    def _ready_to_revert(self, atom: Any) -> bool:
        own = self._storage.detail(atom.name)
        if own.intention not in (states.REVERT, states.RETRY):
            return False
        if not self._runtime.check_atom_transition(atom, own.state, states.REVERTING):
            return False
        after = self._connected(atom, self._execution_graph._succ, stop_at=(states.PENDING, states.REVERTED))
        return all(detail.state in _UNDONE for detail in after)

    def _connected(self, atom: Any, neighbours: Mapping[Any, Any], stop_at: tuple[str, ...]) -> Iterator[Any]:
        """Details of all atoms in one direction, not behind one in ``stop_at``: for those behind it, it has waited."""
        graph = self._execution_graph
        seen: set[Any] = set()
        ahead = list(neighbours[atom])
        for node in ahead:
            if node in seen:
                continue
            seen.add(node)
            if graph._node[node]["kind"] in compiler.ATOMS:
                detail = self._storage.detail(node.name)
                yield detail
                if detail.state in stop_at:
                    continue
            ahead.extend(neighbours[node])
