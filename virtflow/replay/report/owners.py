"""Who ran the operation when: for each host, the stretches of one epoch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from virtflow.replay.recording import Event, Recording


def owners(
    recording: Recording, events: Sequence[Event], start: int, host_number: Callable[[str | None], int]
) -> list[dict[str, Any]]:
    """``first`` and ``last`` number events, ``from`` and ``to`` are microseconds after ``start``."""
    held = {claim.subject: claim for claim in recording.claims}
    found: dict[tuple[str, str | None, int], dict[str, Any]] = {}
    for index, event in enumerate(events):
        subject = event.flow if event.flow in held else recording.operation.id
        key = (subject, event.host, event.epoch)
        stretch = found.setdefault(
            key,
            {
                "host": host_number(event.host),
                "epoch": event.epoch,
                "first": index,
                "from": event.at - start,
                "process": None,
            },
        )
        stretch |= {"last": index, "to": event.at - start}
        if isinstance(event.data, Mapping) and isinstance(event.data.get("pid"), int):
            stretch["process"] = f"process {event.data['pid']}"
    for (subject, _host, epoch), stretch in found.items():
        claim = held.get(subject)
        if stretch["process"] is None and claim is not None and claim.epoch == epoch:
            stretch["process"] = _process(claim.owner)
    return sorted(found.values(), key=lambda stretch: (stretch["first"], stretch["host"]))


def ribbon(
    events: Sequence[Event], owned: Sequence[Mapping[str, Any]], host_number: Callable[[str | None], int]
) -> list[dict[str, Any]]:
    """The same beside the list of events: whose event each is, alike neighbours together."""
    process = {(stretch["host"], stretch["epoch"]): stretch["process"] for stretch in reversed(owned)}
    found: list[dict[str, Any]] = []
    for index, event in enumerate(events):
        key = (host_number(event.host), event.epoch)
        if found and (found[-1]["host"], found[-1]["epoch"]) == key:
            found[-1]["last"] = index
        else:
            found.append({"host": key[0], "epoch": key[1], "process": process[key], "first": index, "last": index})
    return found


def _process(owner: str | None) -> str | None:
    try:
        return f"process {int(json.loads(owner or '')[1])}"
    except (ValueError, LookupError, TypeError):
        return None
