"""The XML that tasks returned: libvirt's domains above all. Two of them can be compared in the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from virtflow.replay.history import DO, each_flow
from virtflow.replay.recording import Recording
from virtflow.replay.report.values import Values


def documents(recording: Recording, values: Values, prefix: str = "") -> list[dict[str, Any]]:
    """Those of a recording, in the order in which they were made. ``name`` is the same for what is made again."""
    several = len({event.host for event in recording.events}) > 1
    made = [attempt for _, found in each_flow(recording) for attempt in found if attempt.direction == DO]
    rows = []
    for attempt in sorted(made, key=lambda attempt: attempt.started_at):
        for path, text in documents_in(attempt.result):
            again = f", attempt {attempt.number}" if attempt.number > 1 else ""
            where = f" on {attempt.host}" if several else ""
            label = f"{prefix}{attempt.task}{again}{where}{f': {path}' if path else ''}"
            rows.append({"name": f"{attempt.task} {path}", "label": label, "value": values.add(text)})
    return rows


def documents_in(value: Any, path: str = "") -> list[tuple[str, str]]:
    """The XML texts in a value, each with where it is."""
    if isinstance(value, str):
        text = value.lstrip()
        return [(path, value)] if text.startswith("<") and ">" in text and "\n" in text.strip() else []
    if isinstance(value, Mapping):
        return [
            found for key, entry in value.items() for found in documents_in(entry, f"{path}.{key}" if path else key)
        ]
    if isinstance(value, list | tuple):
        return [found for place, entry in enumerate(value) for found in documents_in(entry, f"{path}[{place}]")]
    return []
