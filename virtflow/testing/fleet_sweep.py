"""A worker that is killed at each durable write of spawns and deletes, and what came of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from virtflow.persistence.operations import Operation
from virtflow.requests import DeleteRequest
from virtflow.testing.fleet import DOWN_AFTER, Fleet, FleetHost, await_

if TYPE_CHECKING:
    from virtflow.requests import SpawnRequest

REQUESTS = 4
"""After so many, a worker that is to die at a write has made it."""
_GIVEN_UP = 2 * DOWN_AFTER + 2
"""Seconds after which what still waits for a host does so because a guest may run there."""


def sweep(fleet: Fleet, writes: Iterable[int]) -> list[str]:
    """Each write, with a worker that is restarted at once, and with one that stays away; what went wrong."""
    broken = []
    for number in writes:
        for restarted in (True, False):
            how = f"killed at write {number}, {'restarted' if restarted else 'not restarted'}"
            try:
                found = kill_at(fleet, number, restarted=restarted)
            except AssertionError as error:
                found = [str(error)]
            print(f"{how}: {'well' if not found else found[0]}", flush=True)
            broken += [f"{how}: {each}" for each in found]
    return broken


def kill_at(fleet: Fleet, write: int, *, restarted: bool) -> list[str]:
    """Ask for guests and their removal until h1's worker has made its ``write``; what does not hold at the end."""
    h1 = fleet.hosts["h1"]
    fleet.start()
    h1.stop()
    h1.start(f"write:{write}:kill")
    fleet.await_registered(h1)
    doomed = Path("/proc", str(h1.pid))
    # Hosts in one network namespace would take each other's taps for their own.
    plain: dict[str, Any] = {} if h1.network is not None else {"networks": []}
    living: list[Operation] = []
    for number in range(REQUESTS):
        spawn = number % 2 == 0 or not living
        asked = on(fleet, h1, fleet.small(**plain)) if spawn else delete(fleet, living.pop())
        if restarted:
            await_(partial(_died_or_over, fleet, h1, asked), "the end of the worker or of the operation")
            fleet.start()
        ended = _patiently(fleet, asked)
        if ended.outcome != "SUCCESS":
            return [f"operation {ended.number} ({ended.kind} {ended.target}) ended {ended.outcome}: {ended.error}"]
        if spawn:
            living.append(ended)
        if not doomed.exists():
            break
    fleet.start()
    return fleet.settle()


def on(fleet: Fleet, host: FleetHost, request: SpawnRequest) -> Operation:
    """A guest that goes to this host first, since no other takes any while it is decided."""
    others = [each for each in fleet.hosts if each != host.name]
    for other in others:
        fleet.client.core.hosts.disable(other)
    try:
        operation = fleet.client.submit(request)
        fleet.wait_for_decision(operation)
        return operation
    finally:
        for other in others:
            fleet.client.core.hosts.enable(other)


def delete(fleet: Fleet, spawned: Operation) -> Operation:
    """The removal of what it has made."""
    return fleet.client.submit(DeleteRequest(name=str(spawned.request["name"])))


def _died_or_over(fleet: Fleet, host: FleetHost, operation: Operation) -> bool:
    return not host.alive or fleet.over(operation)


def _patiently(fleet: Fleet, operation: Operation) -> Operation:
    """Its end; where it waits for a host on which a guest may run, the host comes back."""
    with contextlib.suppress(AssertionError):
        return fleet.wait(operation, _GIVEN_UP)
    fleet.start()
    return fleet.wait(operation)
