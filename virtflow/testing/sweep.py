"""The sweep: run an operation once for every way in which it can break, and look whether anything is left behind.

    python -m virtflow.testing.sweep virtflow.testing.scenarios:SPAWN                    # every case
    python -m virtflow.testing.sweep virtflow.testing.scenarios:SPAWN --case spawn.host/DefineDomain/kill-after
    python -m virtflow.testing.sweep virtflow.testing.scenarios:SPAWN --writes           # killed at every durable write

The argument is a ``Scenario``, yours for your own flows. Each case runs in forked processes (that may be killed),
through the real engine. Afterwards the verdict must be right, the audit must find nothing, no secret may be readable,
and the world must be the one from before; or, where the operation ends well, the one that it makes when nothing goes
wrong: then it is undone, and the world must be the one from before.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module

from virtflow.testing import known_qemus
from virtflow.testing.forks import Ended, in_child
from virtflow.testing.scenario import Scenario
from virtflow.testing.sweep_cases import Case, find_case, task_cases
from virtflow.testing.sweep_steps import Report, World, prepare_world, try_case
from virtflow.testing.throwaway_host import ThrowawayHost

STEP_SECONDS = 90.0
"""How long a process of a case usually may take; one that takes longer hangs."""
_LOG_END = 6000
"""How much is told of the log of a process that died, in characters."""


@dataclass(frozen=True)
class CaseResult:
    """``problems`` is empty when all was well. ``kills`` counts the processes killed, ``writes`` what the last process
    committed while its fault was armed; ``met`` says whether the fault happened. ``command`` does it again."""

    name: str
    outcome: str | None
    problems: tuple[str, ...]
    kills: int
    met: bool
    writes: int
    seconds: float
    command: str


class Sweep:
    """Runs cases of one scenario, one after the other. The process must not have opened libvirt itself."""

    def __init__(self, reference: str, step_seconds: float = STEP_SECONDS) -> None:
        """``reference``: where the scenario is, as ``module:NAME``; ``step_seconds``: how long a process may take."""
        self.reference = reference
        self.step_seconds = step_seconds
        self.scenario = find_scenario(reference)
        self._world: World | None = None

    def run(self, case: Case) -> CaseResult:
        """Try one case. A world that is not as before is thrown away with its host; the next case gets a new one."""
        world = self._world = self._world or self._prepare()
        started = time.monotonic()
        self.scenario.before(world.host, case)
        kills = 0
        ended = Ended(0)
        for step, faults in enumerate((*case.faults, case.lasting)):
            attempt = partial(try_case, self.scenario, world, case, step, faults)
            kill_after = case.kill_after if step == 0 else None
            ended = in_child(attempt, seconds=self.step_seconds, kill_after=kill_after)
            if not ended.killed:
                break
            kills += 1
        report = _report(ended, case, kills, world.host)
        seconds = time.monotonic() - started
        if report.problems:
            self.close()
        else:
            self._world = world.after(report)
        return CaseResult(
            name=case.name,
            outcome=report.outcome,
            problems=report.problems,
            kills=kills,
            met=report.met or kills > 0,
            writes=report.writes,
            seconds=seconds,
            command=f"python -m virtflow.testing.sweep {self.reference} --case {shlex.quote(case.name)}",
        )

    def run_writes(self, prefix: str = "") -> Iterator[CaseResult]:
        """Kill at every durable write, before and after it, until the operation ends before the number is reached."""
        for number in range(1, 1000):
            for when in ("before", "after"):
                result = self.run(find_case(self.scenario, f"{prefix}write/{number}/{when}"))
                yield result
                if not result.met:
                    return

    def close(self) -> None:
        """Take the host away, with whatever is on it."""
        if self._world is not None:
            self._world.host.discard()
            self._world = None

    def _prepare(self) -> World:
        host = ThrowawayHost.make()
        host.migrate()
        ended = in_child(lambda: prepare_world(self.scenario, host), seconds=self.step_seconds)
        known_qemus.learn(host.libvirt_cache)
        if ended.signal or ended.error:
            host.discard()
            raise RuntimeError(f"the scenario fails without any fault: {ended.error or ended}")
        self._import(ended.value["modules"])
        return World.from_plain(host, ended.value)

    @staticmethod
    def _import(modules: list[str]) -> None:
        """What the first child had to import, the later ones inherit: half a second each."""
        for name in modules:
            with contextlib.suppress(Exception):  # made at runtime, or no module of its own
                import_module(name)


def find_scenario(reference: str) -> Scenario:
    module, _, name = reference.partition(":")
    found = getattr(import_module(module), name)
    if not isinstance(found, Scenario):
        raise TypeError(f"{reference} is no Scenario")
    return found


def _report(ended: Ended, case: Case, kills: int, host: ThrowawayHost) -> Report:
    """What the last process found; the problems of one that said nothing."""
    if ended.signal:
        log = (host.root / "sweep.log").read_text(errors="replace")
        end = log.rpartition("Fatal Python error")[2][-_LOG_END:]
        return Report(problems=(f"the process hung, or died of signal {ended.signal}: {end}",))
    if ended.error is not None:
        return Report(problems=(ended.error,))
    report = Report.from_plain(ended.value)
    expected = sum(":kill" in faults for faults in case.faults)
    if not case.optional and kills != expected:
        return report.with_problem(f"killed {kills} times, not {expected}: the fault was never met")
    return report


def main(arguments: list[str] | None = None) -> int:
    """The command line; exit status 1 when a case has problems."""
    parser = argparse.ArgumentParser(prog="python -m virtflow.testing.sweep", description=__doc__.partition("\n")[0])
    parser.add_argument("scenario", help="module:NAME of a Scenario")
    parser.add_argument("--case", action="append", help="only this case; may be repeated")
    parser.add_argument("--writes", action="store_true", help="kill at every durable write instead")
    parser.add_argument("--failing-writes", action="store_true", help="the same while the operation fails at its end")
    chosen = parser.parse_args(arguments)
    sweep = Sweep(chosen.scenario)
    tried = failed = 0
    try:
        for result in _chosen_results(sweep, chosen):
            tried += 1
            failed += bool(result.problems)
            print(f"{'FAIL' if result.problems else 'ok  '} {result.seconds:5.1f} s  {result.outcome}  {result.name}")
            for problem in result.problems:
                print(f"       {problem}")
            sys.stdout.flush()
    finally:
        sweep.close()
    print(f"{tried} cases, {failed} with problems")
    return 1 if failed else 0


def _chosen_results(sweep: Sweep, chosen: argparse.Namespace) -> Iterator[CaseResult]:
    if chosen.writes:
        yield from sweep.run_writes()
    if chosen.failing_writes:
        yield from sweep.run_writes("failing-")
    if not (chosen.writes or chosen.failing_writes):
        names = chosen.case
        cases = [find_case(sweep.scenario, name) for name in names] if names else task_cases(sweep.scenario)
        yield from map(sweep.run, cases)


if __name__ == "__main__":
    sys.exit(main())
