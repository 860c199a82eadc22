"""A running guest on its way from this libvirt to another.

libvirt of the source does it (peer to peer): the job goes on when whoever has asked for it dies, so that another
process can find it under way, watch it, and judge: by where the guest runs, never by what a call has returned.

What a migration is made of, and its states: https://libvirt.org/migration.html
"""

from __future__ import annotations

import logging
import time
from enum import StrEnum
from typing import Any

from virtflow.activity import IDLE, Activity
from virtflow.errors import HypervisorError, HypervisorUnreachable, MigrationFailed, OperationCancelled
from virtflow.hypervisor.binding import libvirt
from virtflow.hypervisor.domain_state import DomainState, DomainStatus, status_of
from virtflow.hypervisor.hypervisor import Hypervisor
from virtflow.hypervisor.migration_course import NOT_NOW, Call, Course, abort
from virtflow.hypervisor.migration_plan import MigrationPlan, MigrationStats

LOG = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_WATCH_SECONDS = 0.5
"""Between two looks at a migration while its call lasts: every look is work for the libvirt that does it."""
_SURE_SECONDS = 5.0
"""For how long neither host has to have the guest until that is believed."""
_ABORT_SECONDS = 120.0
_INCOMING = (libvirt.VIR_DOMAIN_PAUSED_MIGRATION, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP)
"""Why a domain is paused whose guest has not arrived yet."""
_POST_COPY = (libvirt.VIR_DOMAIN_PAUSED_POSTCOPY, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED)
"""Why a domain is paused whose guest runs elsewhere already, and lacks memory that is still here."""
_LACKING = (
    *((DomainState.PAUSED, reason) for reason in _POST_COPY),
    (DomainState.RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY),
    (DomainState.RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY_FAILED),
)
"""How a guest is that has come, but not all of its memory."""
_FETCH_SECONDS = 60.0
"""For how long a guest that lacks memory is helped to it, before it is started anew."""


class Whereabouts(StrEnum):
    """Where a guest is. NOWHERE: neither host runs it."""

    SOURCE = "source"
    UNDER_WAY = "under way"
    DESTINATION = "destination"
    NOWHERE = "nowhere"


class Migration:
    """Of one guest. Every call may be repeated, in another process too.

    All of them may raise HypervisorError and HypervisorUnreachable.
    """

    def __init__(self, source: Hypervisor, destination: Hypervisor, uuid: str) -> None:
        self._source = source
        self._destination = destination
        self._uuid = uuid

    def where(self) -> Whereabouts:
        """The destination is asked only where the source alone cannot tell."""
        if self.stats() is not None:
            return Whereabouts.UNDER_WAY
        here = _status(self._source, self._uuid)
        if here is not None and here.state.is_active:
            if here.state is not DomainState.PAUSED:
                return Whereabouts.SOURCE
            if here.reason in _POST_COPY:
                return Whereabouts.DESTINATION
            return Whereabouts.DESTINATION if arrived(self._destination, self._uuid) else Whereabouts.SOURCE
        if here is not None and here.reason == libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED:
            return Whereabouts.DESTINATION
        there = _status(self._destination, self._uuid)
        # Defined is a guest there from the moment in which its source has handed it over.
        return Whereabouts.NOWHERE if there is None or _is_incoming(there) else Whereabouts.DESTINATION

    def stats(self) -> MigrationStats | None:
        """Of the job that is under way on the source; None when there is none."""

        def read(domain: Any) -> MigrationStats | None:
            try:
                raw = domain.jobStats()
            except libvirt.libvirtError as error:
                if error.get_error_code() == libvirt.VIR_ERR_OPERATION_TIMEOUT:
                    return MigrationStats.read({})  # libvirt is too busy with it to say
                if error.get_error_code() in NOT_NOW:
                    return None
                raise
            outgoing = raw.get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
            under_way = raw.get("type") in (libvirt.VIR_DOMAIN_JOB_BOUNDED, libvirt.VIR_DOMAIN_JOB_UNBOUNDED)
            return MigrationStats.read(raw) if outgoing and under_way else None

        return self._source.with_domain("look at the migration of", self._uuid, read)

    def carry(self, plan: MigrationPlan, activity: Activity = IDLE) -> dict[str, Any]:
        """Let the guest go, or go on with a migration that is under way, until it is there; how it went.

        That is, numbers of MigrationStats, and whether it was ``forced`` and whether it ended as ``post_copy``.

        MigrationFailed, OperationCancelled and TaskTimeout: the guest runs on the source, and nothing is under way.
        A cancel is looked for as long as the guest can be kept.
        """
        call = None
        if _patiently(self.where) is Whereabouts.SOURCE:
            if activity.cancel_requested():
                raise OperationCancelled(step=activity.name)
            call = Call(self._source, self._uuid, plan)
        course = Course(self._source, self._uuid, plan, activity)
        last = self._follow(call, course, activity)
        if _patiently(self._settled) is Whereabouts.DESTINATION:
            self._fetch(plan, course, activity)
            _patiently(self._let_go)
            return {**self._completed(last), **course.told()}
        self.keep()
        course.explain()
        reason = (call.error if call is not None else None) or "it ended before the guest was there"
        raise MigrationFailed(domain=self._uuid, reason=reason)

    def _follow(self, call: Call | None, course: Course, activity: Activity) -> MigrationStats:
        """Until neither libvirt's call nor its job is under way any more; what was last heard of the job.

        A destination whose source dies in the middle of post-copy may wait for the rest for ever: it is not let.
        """
        last = MigrationStats.read({})
        since = None
        while True:
            going = call is not None and call.under_way
            stats = _patiently(self.stats)
            if stats is None and not going:
                return last
            if stats is not None:
                last = stats
                activity.report(stats.done, stats.total or None)
                course.steer(stats)
            stranded = course.post_copy and _patiently(self._is_stranded)
            since = (since or time.monotonic()) if stranded else None
            if since is not None and time.monotonic() - since > _SURE_SECONDS:
                _patiently(self._let_go)
            if call is not None and going:
                call.wait(_WATCH_SECONDS)
            else:
                time.sleep(_POLL_SECONDS)

    def keep(self) -> bool:
        """Make sure that the guest runs on the source and nothing is under way; False when it is gone for good.

        Stops a migration, lets a halted guest go on, starts again one that has died: its disks are as it left them.
        """
        deadline = time.monotonic() + _ABORT_SECONDS
        while (place := self._settled()) is Whereabouts.UNDER_WAY:
            if time.monotonic() > deadline:
                raise HypervisorError(action="stop the migration of", domain=self._uuid, reason="it goes on", code=0)
            abort(self._source, self._uuid)
            time.sleep(_POLL_SECONDS)
        if place is Whereabouts.DESTINATION:
            return False
        self._source.start(self._uuid)
        return True

    # -- inside

    def _settled(self) -> Whereabouts:
        """``where``; that the guest is nowhere has to be so for a while."""
        deadline = time.monotonic() + _SURE_SECONDS
        while (place := self.where()) is Whereabouts.NOWHERE and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return place

    def _fetch(self, plan: MigrationPlan, course: Course, activity: Activity) -> None:
        """Let a guest have the memory that it lacks, as long as its source has it; the link between them was broken."""
        deadline = time.monotonic() + _FETCH_SECONDS
        while _patiently(self._can_fetch) and time.monotonic() < deadline:
            self._follow(Call(self._source, self._uuid, plan, resume=True), course, activity)
            time.sleep(_POLL_SECONDS)

    def _can_fetch(self) -> bool:
        here = _status(self._source, self._uuid)
        has_it = here is not None and (here.state, here.reason) in _LACKING
        return has_it and _lacks_memory(_status(self._destination, self._uuid))

    def _is_stranded(self) -> bool:
        """Whether the guest runs on the destination, and what it lacks of its memory died with the source."""
        here = _status(self._source, self._uuid)
        dead = here is None or not here.state.is_active
        return dead and _lacks_memory(_status(self._destination, self._uuid))

    def _let_go(self) -> None:
        """Nothing of the guest is left running on the source, and it runs where it is.

        One that has died there, or that lacks memory for good, is started anew: the disks there are the newest.
        """
        state = self._source.state(self._uuid)
        if state is not None and state.is_active:
            self._source.destroy(self._uuid)
        there = _status(self._destination, self._uuid)
        if _lacks_memory(there):
            self._destination.destroy(self._uuid)
        if there is not None and (_lacks_memory(there) or not there.state.is_active):
            self._destination.start(self._uuid)

    def _completed(self, last: MigrationStats) -> dict[str, int]:
        def read(domain: Any) -> MigrationStats:
            return MigrationStats.read(domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED))

        try:
            found = self._destination.with_domain("look at the migration of", self._uuid, read)
        except (HypervisorError, HypervisorUnreachable):
            found = None
        return (found if found is not None and found.elapsed_ms else last).to_dict()


def arrived(hypervisor: Hypervisor, uuid: str) -> bool:
    """Whether the guest is on that host: not merely expected there."""
    status = _status(hypervisor, uuid)
    return status is not None and status.state.is_active and not _is_incoming(status)


def dismiss_incoming(hypervisor: Hypervisor, uuid: str) -> bool:
    """Remove what waits for a guest that does not come; False when the guest is there."""
    status = _status(hypervisor, uuid)
    if status is None or not status.state.is_active:
        return True
    if not _is_incoming(status):
        return False
    hypervisor.destroy(uuid)
    return True


def settle_arrived(hypervisor: Hypervisor, uuid: str) -> bool:
    """Let the guest run on this host if it has come, whose source is dead for good; False when it has not.

    libvirt keeps the domain's definition once everything of the guest is there. One that has died since, or that lacks
    memory which only the source had, is started from its disks: those here are the newest. What waits for a guest that
    does not come any more is removed.
    """
    deadline = time.monotonic() + _SURE_SECONDS
    while (status := _status(hypervisor, uuid)) is not None and _is_incoming(status):
        if time.monotonic() > deadline:
            hypervisor.destroy(uuid)
        time.sleep(_POLL_SECONDS)
    if status is None:
        return False
    if _lacks_memory(status):
        hypervisor.destroy(uuid)
    hypervisor.start(uuid)
    return True


def _is_incoming(status: DomainStatus) -> bool:
    paused = status.state is DomainState.PAUSED and status.reason in _INCOMING
    return paused or status.state is DomainState.STARTING


def _lacks_memory(status: DomainStatus | None) -> bool:
    return status is not None and (status.state, status.reason) in _LACKING


def _status(hypervisor: Hypervisor, uuid: str) -> DomainStatus | None:
    return hypervisor.with_domain("look at", uuid, status_of)


def _patiently(look: Any) -> Any:
    """Wait for a libvirt that is away: until it answers nobody knows where the guest is."""
    told = False
    while True:
        try:
            return look()
        except HypervisorUnreachable as error:
            if not told:
                LOG.warning("a migration waits: %s", error)
                told = True
            time.sleep(1.0)
