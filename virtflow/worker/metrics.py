"""What a worker counts, in Prometheus's text format. Nothing is sampled: every number is kept as things happen."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping


class Metrics:
    """Thread-safe. ``gauges`` are asked when somebody looks."""

    def __init__(self, gauges: Mapping[str, tuple[str, Callable[[], float]]] | None = None) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._gauges = dict(gauges or {})
        self._started = time.time()

    def claimed(self, topic: str) -> None:
        self._count("virtflow_jobs_claimed_total", f'topic="{topic}"')

    def settled(self, topic: str, *, done: bool) -> None:
        result = "finished" if done else "given_back"
        self._count("virtflow_jobs_settled_total", f'topic="{topic}",result="{result}"')

    def reconciled(self, what: str, number: int) -> None:
        """``number`` things of a sort were put right."""
        self._count("virtflow_reconciled_total", f'what="{what}"', number)

    def ended(self, outcome: str) -> None:
        """An operation ended on this worker."""
        self._count("virtflow_operations_ended_total", f'outcome="{outcome}"')

    def text(self) -> str:
        """The page."""
        with self._lock:
            counts = sorted(self._counts.items())
        lines: list[str] = []
        named = ""
        for (name, labels), value in counts:
            if name != named:
                lines.append(f"# TYPE {name} counter")
                named = name
            lines.append(f"{name}{{{labels}}} {value}")
        for name, (about, read) in sorted(self._gauges.items()):
            lines += [f"# HELP {name} {about}", f"# TYPE {name} gauge", f"{name} {read():g}"]
        lines += ["# TYPE virtflow_start_time_seconds gauge", f"virtflow_start_time_seconds {self._started:.3f}"]
        return "\n".join(lines) + "\n"

    def _count(self, name: str, labels: str, number: int = 1) -> None:
        if number:
            with self._lock:
                self._counts[name, labels] += number
