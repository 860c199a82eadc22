"""The service behind the task ``OnHost``: a part of an operation on one host, as a flow of its own.

Where the host is this process's own, the segment runs inline, under the parent's claim. Otherwise the parent writes
down what it asks for (``segments``), the news goes to the host's board, and the parent waits for the verdict. A segment
that was once handed over stays so: whoever holds its claim runs it, and on its own host the parent may be the one.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from virtflow.activity import IDLE, Activity, RunSuspended
from virtflow.engine.flow_driver import FlowDriver
from virtflow.engine.run import OperationRun
from virtflow.errors import Busy, HostElsewhere, HostGivenUp, SegmentFailed, SegmentRefused
from virtflow.persistence import ledger, segments
from virtflow.persistence.posting import Posting, host_topic
from virtflow.persistence.segments import Segment

if TYPE_CHECKING:
    from virtflow.engine.core import EngineCore

LOG = logging.getLogger(__name__)
_LOOK = 1.0
"""Seconds between two looks at what else may have become of a segment than a verdict."""
_REACTION = 0.25
"""Seconds until whoever waits notices that it is to stop."""


class Segments:
    """For one run of an operation."""

    def __init__(self, run: OperationRun, core: EngineCore) -> None:
        self._run = run
        self._core = core

    def run(
        self,
        segment: str,
        host: str,
        inputs: Mapping[str, Any],
        *,
        activity: Activity = IDLE,
        guards: Collection[str] | None = None,
        until_fenced: bool = False,
        place: str = "",
    ) -> dict[str, Any]:
        """Run the segment, or go on with it where somebody left it; its outputs.

        ``guards`` are the tasks from whose start on the segment may have brought a guest to life: before them, a host
        that is down is given up; after them, or where there are none, it is waited for. A fenced one is given up where
        there are guards, and with ``until_fenced``: that is HostGivenUp.

        ``place`` tells apart the segments that an operation has on one host one after the other.
        """
        identity = self.identity(segment, host, place)
        found = self._handed_over(identity, host)
        if found is None and host == self._run.host:
            return self._inline(identity, segment, inputs)
        asked = found is None or self._stands_still(found)
        if asked:
            self._request(identity, segment, host, segments.RUN, inputs)
        verdict = self._verdict(identity, host, activity, guards, asked=asked, until_fenced=until_fenced)
        if verdict.state != segments.DONE:
            raise self._failure(verdict)
        return dict(verdict.outputs or {})

    def undo(self, segment: str, host: str, place: str = "") -> None:
        """Take back whatever the segment has made; nothing there: nothing to do.

        Where its host is down it becomes a debt, and the host is asked to pay it when it returns, unless the host had
        never begun with it.
        """
        identity = self.identity(segment, host, place)
        found = self._handed_over(identity, host)
        if found is None and host == self._run.host:
            with self._core.alone(identity, self._run):
                driver = FlowDriver.load(self._run, self._core.templates, identity)
                if driver is not None:
                    driver.undo()
                    if self._run.suspend.is_set() and not driver.untouched:
                        raise RunSuspended
            return
        if found is None and FlowDriver.load(self._run, self._core.templates, identity) is None:
            return
        if found is not None and found.state in (segments.FAILED, segments.UNDONE):
            self._run.debts += found.debts
            return
        self.undo_there(identity, segment, host)

    def undo_there(self, identity: str, segment: str, host: str) -> None:
        """Have a host take back what it has made, and pay what it owes."""
        self._request(identity, segment, host, segments.UNDO, {})
        down = self._core.why_silent(host)
        while down is None:
            try:
                self._run.debts += self._verdict(identity, host, IDLE, None, give_up=True).debts
            except _HostDown as error:
                down = str(error)
            else:
                return
        # What the host was asked for before is taken from it by now: what has no flow cannot get one any more.
        if FlowDriver.load(self._run, self._core.templates, identity) is None:
            found = self._core.segments.get(identity)
            self._core.segment_statements.answer(self._run.recorder, found, segments.UNDONE)
            ledger.record_payment(self._run.recorder, self._run.ledger, identity, segment)
            self._run.recorder.flush()
            return
        self._owe(identity, segment, host, down)

    def finished(self, segment: str, host: str, place: str = "") -> bool:
        """Whether the segment was run to its end, and not taken back."""
        driver = FlowDriver.load(self._run, self._core.templates, self.identity(segment, host, place))
        return driver is not None and driver.finished

    @property
    def only_host(self) -> str | None:
        """The one host whose segments can be run from here; None when workers run those of every host."""
        return self._run.host if self._core.dispatch is None else None

    def identity(self, segment: str, host: str, place: str = "") -> str:
        """The segment's uuid: a second execute finds the first one's."""
        return str(uuid.uuid5(uuid.UUID(self._run.operation), "/".join(filter(None, (segment, host, place)))))

    # -- inside

    def _handed_over(self, identity: str, host: str) -> Segment | None:
        """What was asked for, if the segment was ever handed over. A run that began here has handed over nothing."""
        if host == self._run.host and self._core.dispatch is None and self._run.claim.epoch == 1:
            return None
        return self._core.segments.find(identity)

    def _stands_still(self, found: Segment) -> bool:
        """Whether what failed before has to be asked for again, because it only goes forward."""
        kind = self._core.templates.registry.newest(found.kind)
        return kind.forward_only and found.state == segments.FAILED

    def _inline(self, identity: str, segment: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        core, run = self._core, self._run
        with core.alone(identity, run):
            driver = FlowDriver.load(run, core.templates, identity)
            if driver is None:
                driver = FlowDriver.create(
                    run, core.templates, core.templates.registry.newest(segment), identity, inputs
                )
            if not driver.finished:
                driver.run()
            if not driver.finished and run.suspend.is_set():
                raise RunSuspended
            return driver.results()

    def _request(self, identity: str, segment: str, host: str, verb: str, inputs: Mapping[str, Any]) -> None:
        core, run = self._core, self._run
        if core.dispatch is None and host != run.host:
            raise HostElsewhere(host=host, here=run.host)
        posting = Posting(host_topic(host), run.operation, identity)
        batch = core.segment_statements.request(run.claim, identity, segment, host, verb, inputs)
        if core.dispatch is not None:
            batch += core.dispatch.joined(posting)
        core.writer.write(batch)
        if core.dispatch is not None:
            core.dispatch.posted(posting)

    def _verdict(
        self,
        identity: str,
        host: str,
        activity: Activity,
        guards: Collection[str] | None,
        *,
        asked: bool = False,
        until_fenced: bool = False,
        give_up: bool = False,
    ) -> Segment:
        """Wait for it. ``asked``: just now. ``give_up``: _HostDown when the host is down, whatever it has done."""
        with self._core.answers.expecting(identity) as answered:
            if asked and host != self._run.host:
                self._wait(answered, activity)
            while True:
                answered.clear()
                found = self._core.segments.get(identity)
                if found.ended:
                    return found
                self._may_go_on(activity)
                if host == self._run.host and not found.running:
                    with suppress(Busy):  # the worker of this very process was quicker
                        self._core.run_segment(identity)
                        continue
                if not found.running:
                    self._look_after(found, guards, until_fenced=until_fenced, give_up=give_up)
                self._wait(answered, activity)

    def _wait(self, answered: threading.Event, activity: Activity) -> None:
        """Until there is a verdict, or it is time to look what else may have become of the segment."""
        look_again = time.monotonic() + _LOOK
        while not answered.wait(_REACTION) and time.monotonic() < look_again:
            self._may_go_on(activity)

    def _may_go_on(self, activity: Activity) -> None:
        """Raises when the wait was cancelled, or the run is put down."""
        activity.check()
        if self._run.suspend.is_set():
            raise RunSuspended

    def _look_after(self, found: Segment, guards: Collection[str] | None, *, until_fenced: bool, give_up: bool) -> None:
        """Nobody is at work on it: is its host down, and what follows from that?"""
        down = self._core.why_silent(found.host)
        if down is None:
            return
        if give_up:
            raise _HostDown(down)
        core = self._core
        # From here on, whatever still runs there can write nothing, and so begin nothing, any more.
        core.writer.write(core.segment_statements.supersede(self._run.claim, found.id))
        fenced = core.hosts.is_fenced(found.host)
        if (until_fenced and fenced) or (
            guards is not None and (fenced or not core.segments.started(found.id, guards))
        ):
            raise HostGivenUp(segment=found.kind, host=found.host, cause=down)
        self._run.parked = f"waits for host {found.host}: {down}"
        self._run.suspend.set()
        raise RunSuspended

    def _owe(self, identity: str, segment: str, host: str, reason: str) -> None:
        run = self._run
        run.debts += 1
        row = (run.operation, identity, segment, ledger.SEGMENT, identity, host)
        ledger.record_intent(run.recorder, run.ledger, row, {}, again=True)
        ledger.record_state(run.recorder, run.ledger, identity, segment, ledger.DEBT, reason)
        run.recorder.flush()

    def _failure(self, verdict: Segment) -> SegmentFailed:
        cause = verdict.error or verdict.state
        self._run.first_failure = self._run.first_failure or cause
        self._run.debts += verdict.debts
        kind = SegmentFailed if verdict.retry_elsewhere else SegmentRefused
        return kind(segment=verdict.kind, host=verdict.host, cause=cause)


class _HostDown(Exception):
    pass
