"""Would today's code do what was recorded? The gate before an upgrade with operations in flight."""

from __future__ import annotations

from dataclasses import dataclass

from virtflow.replay.player_stage import Code, Divergence, Stage
from virtflow.replay.recording import Recording


@dataclass(frozen=True)
class Checked:
    """A recording that was replayed; no divergence means that today's code goes on with such an operation."""

    recording: Recording
    source: str
    events: int
    divergences: tuple[Divergence, ...]

    @property
    def first(self) -> Divergence | None:
        return self.divergences[0] if self.divergences else None


def check(recording: Recording, code: Code, source: str = "") -> Checked:
    """Replay a recording against the code. Derived: nothing is executed."""
    stage = Stage(recording, code)
    for position, event in enumerate(recording.events):
        stage.apply(position, event)
    name = source or f"operation {recording.operation.number}"
    return Checked(recording, name, len(recording.events), tuple(stage.divergences))
