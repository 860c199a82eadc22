"""What it costs to go to any moment of a long recording: 10,000 events of tasks that are tried again and again."""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from pathlib import Path

from taskflow import retry
from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from benchmarks.table import Target, show, show_targets
from virtflow.engine.flow_driver import Templates
from virtflow.flows.kind import FlowKind
from virtflow.flows.registry import Registry
from virtflow.persistence import schema
from virtflow.replay.player import Player
from virtflow.replay.player_stage import Code
from virtflow.replay.recording import Recording
from virtflow.testing.recordings import RecordingStudio, Step

_EVENTS = 10_000
_TASKS = 24
_ATTEMPTS = _EVENTS // (_TASKS * 5) + 1
_LIMIT = 100.0


def replay(rounds: int) -> list[Target]:
    """Milliseconds to open a recording, and to go to 200 moments of it in no order."""
    recording = _recorded()
    code = Code(Templates(Registry((FlowKind("toy", 1, lambda _shape: _flow()),))), ("failures",))
    opened, slowest, median = [], [], []
    for number in range(rounds):
        start = time.perf_counter()
        player = Player(recording, code)
        opened.append((time.perf_counter() - start) * 1000)
        spent = _jumps(player, random.Random(number))
        slowest.append(max(spent))
        median.append(statistics.median(spent))
    found = {"open": opened, "goto, median": median, "goto, slowest": slowest}
    rows = [(name, f"{statistics.median(values):.2f}") for name, values in found.items()]
    show(f"A recording of {len(player.events)} events", ("", "ms"), rows)
    targets = [Target("slowest goto, ms", statistics.median(slowest), _LIMIT, most=True)]
    show_targets(targets)
    return targets


def _jumps(player: Player, dice: random.Random) -> list[float]:
    spent = []
    for _ in range(200):
        position = dice.randrange(len(player.events) + 1)
        start = time.perf_counter()
        player.goto(position)
        spent.append((time.perf_counter() - start) * 1000)
    return spent


def _recorded() -> Recording:
    with tempfile.TemporaryDirectory(prefix="vfb-") as directory, RecordingStudio(Path(directory)) as studio:
        schema.upgrade(studio.database)
        recording = studio.record(_flow)
    assert len(recording.events) >= _EVENTS, len(recording.events)
    return recording


def _flow() -> Flow:
    steps = [Step(f"Step{number}") for number in range(_TASKS)]
    return linear_flow.Flow("toy", retry=retry.Times(_ATTEMPTS, name="Again")).add(*steps, Step("Last", fails=-1))
