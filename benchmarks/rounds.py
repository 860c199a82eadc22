"""Measures several systems in turns, so that what slows the machine down slows all of them down.

Each system is a process that is stopped while the others are measured: an idle system's polling costs the others
nothing. A ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Measured:
    """Rounds of one system: steps a second, and CPU milliseconds a step (of its own process, not of a server)."""

    rates: tuple[float, ...]
    cpu: tuple[float, ...]

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    @property
    def cpu_ms(self) -> float:
        return statistics.median(self.cpu)

    def ratio(self, other: Measured) -> float:
        """How many times as fast as the other, round by round."""
        return statistics.median(own / its for own, its in zip(self.rates, other.rates, strict=True))


class Contestant:
    """A running worker. ``env`` is added to its environment."""

    def __init__(
        self, system: str, url: str, tasks: int, in_flight: int, env: Mapping[str, str], round_seconds: float
    ) -> None:
        self._tasks = tasks
        self._in_flight = in_flight
        command = [sys.executable, "-m", "benchmarks.worker", system, url, str(tasks)]
        self._process = subprocess.Popen(
            command,
            cwd=_ROOT,
            env={**os.environ, **env},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        if self._answer() != "ready":
            raise SystemExit(f"{system} does not start (pip install -e '.[bench]'?): run {' '.join(command)}")
        self._flows = in_flight
        seconds, _cpu = self._run(in_flight)  # warms up
        self._flows = max(1, round(round_seconds / seconds)) * in_flight
        self._process.send_signal(signal.SIGSTOP)

    def measure(self) -> tuple[float, float]:
        """One round: steps a second and CPU milliseconds a step."""
        self._process.send_signal(signal.SIGCONT)
        self._run(self._in_flight)
        seconds, cpu = self._run(self._flows)
        self._process.send_signal(signal.SIGSTOP)
        steps = self._flows * self._tasks
        return steps / seconds, cpu / steps * 1000

    def end(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.communicate()

    def _run(self, flows: int) -> tuple[float, float]:
        assert self._process.stdin is not None
        print(flows, self._in_flight, file=self._process.stdin, flush=True)
        seconds, cpu = map(float, self._answer().split())
        return seconds, cpu

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def measure(
    contestants: Mapping[str, tuple[str, str]],
    tasks: int,
    *,
    rounds: int,
    in_flight: int = 1,
    env: Mapping[str, str] | None = None,
    round_seconds: float = 0.8,
) -> dict[str, Measured]:
    """Run all of ``contestants`` (label: system and database URL) in turns; what each of them reached.

    ``round_seconds`` is what a round of one system should take, roughly.
    """
    running: dict[str, Contestant] = {}
    try:
        for label, (system, url) in contestants.items():
            running[label] = Contestant(system, url, tasks, in_flight, env or {}, round_seconds)
        turns: dict[str, list[tuple[float, float]]] = {label: [] for label in running}
        for _ in range(rounds):
            for label, contestant in running.items():
                turns[label].append(contestant.measure())
    finally:
        for contestant in running.values():
            contestant.end()
    return {label: _measured(results) for label, results in turns.items()}


def _measured(results: Sequence[tuple[float, float]]) -> Measured:
    rates, cpu = zip(*results, strict=True)
    return Measured(tuple(rates), tuple(cpu))
