"""What is swept: which operation, in which world."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from virtflow.engine.runner import Runner
from virtflow.flows.registry import Registry, default_registry
from virtflow.requests import Request
from virtflow.testing.throwaway_host import ThrowawayHost

if TYPE_CHECKING:
    from virtflow.testing.sweep_cases import Case


def default_runner(host: ThrowawayHost) -> Runner:
    """What a host's configuration says."""
    return Runner(host.config())


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """``request`` is what is run; with ``undo`` it is run in peace, and its undo is what breaks. With ``purge`` it is
    run in peace, too, after that has made what it deletes; ``kind``, the purge that follows, is what breaks.

    ``make_runner`` is called in a fresh process each time; ``registry`` has the flows that are swept. ``prepare`` is
    called once per host, ``before`` in front of every case. ``identities(operation id)`` maps what differs between two
    runs by design to a common name. ``secrets`` must not be readable anywhere but in the guest's own directory.
    ``shapes``: what decides the graphs of the segments that the request leads to, by segment, where it is not the usual
    shape (cases are made before anything has run; the run in peace checks them). ``absent``: segments that are for each
    of a list, of which this request has none. ``besides``: tasks that another scenario sweeps already.
    ``early_failure`` is a task whose failure provokes the reverts of what precedes it, where that is quicker than
    failing after the last one.
    """

    request: Callable[[], Request]
    kind: str
    make_runner: Callable[[ThrowawayHost], Runner] = default_runner
    registry: Callable[[], Registry] = default_registry
    prepare: Callable[[Runner], None] = lambda _runner: None
    before: Callable[[ThrowawayHost, Case], None] = lambda _host, _case: None
    identities: Callable[[str], dict[str, str]] = lambda operation: {operation: "<operation>"}
    shapes: Mapping[str, Hashable] = field(default_factory=dict)
    secrets: tuple[bytes, ...] = ()
    absent: frozenset[str] = frozenset()
    besides: frozenset[str] = frozenset()
    undo: bool = False
    purge: Callable[[Runner], None] | None = None
    early_failure: str | None = None
