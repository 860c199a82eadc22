"""While a guest is on its way: libvirt's call that takes it there, and what is asked of libvirt meanwhile."""

from __future__ import annotations

import logging
import threading
from typing import Any

from virtflow.activity import Activity
from virtflow.errors import HypervisorError, OperationCancelled, TaskTimeout
from virtflow.hypervisor.binding import libvirt
from virtflow.hypervisor.hypervisor import Hypervisor
from virtflow.hypervisor.migration_plan import MigrationPlan, MigrationStats
from virtflow.hypervisor.session import message

LOG = logging.getLogger(__name__)

NOT_NOW = (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN)
"""What libvirt says when there is no migration of which anything could be asked."""


class Call:
    """The call of libvirt that lasts as long as the migration, in a thread of its own."""

    def __init__(self, source: Hypervisor, uuid: str, plan: MigrationPlan, *, resume: bool = False) -> None:
        self._flags = plan.flags() | (libvirt.VIR_MIGRATE_POSTCOPY_RESUME if resume else 0)
        self.error: str | None = None
        self._begun = False
        self._arguments = (source, uuid, plan)
        self._thread = threading.Thread(target=self._run, name="virtflow-migrate", daemon=True)
        self._thread.start()

    @property
    def under_way(self) -> bool:
        return self._thread.is_alive()

    def wait(self, seconds: float) -> None:
        """Until it has ended, or for so long."""
        self._thread.join(seconds)

    def _run(self) -> None:
        source, uuid, plan = self._arguments

        def migrate(domain: Any) -> None:
            if not self._begun:  # a connection that broke is opened again, but what may be under way is not begun again
                self._begun = True
                domain.migrateToURI3(plan.uri, plan.parameters(), self._flags)

        try:
            source.with_domain("migrate", uuid, migrate)
        except HypervisorError as error:
            self.error = str(error.fields["reason"])
        except Exception as error:  # noqa: BLE001 - what has become of the guest is found out by looking at it
            self.error = str(error)


class Course:
    """What is done while a migration goes on. Of all that is asked of libvirt here, "not now" is no error."""

    def __init__(self, source: Hypervisor, uuid: str, plan: MigrationPlan, activity: Activity) -> None:
        self._source = source
        self._uuid = uuid
        self._plan = plan
        self._activity = activity
        self._told_downtime = plan.downtime_ms == 0
        self.post_copy = plan.post_copy
        self._post_copy = False
        self._cancelled = False
        self._timed_out = False
        self._forced = False

    def steer(self, stats: MigrationStats) -> None:
        if not self._told_downtime:
            self._told_downtime = self._ask(lambda domain: domain.migrateSetMaxDowntime(self._plan.downtime_ms))
        if self._post_copy:
            return  # the guest is over there: there is no way back
        elapsed = stats.elapsed_ms / 1000
        if self._activity.cancel_requested():
            self._cancelled = True
            abort(self._source, self._uuid)
        elif self._plan.timeout and elapsed > self._plan.timeout * (2 if self._forced else 1):
            self._hurry()
        elif self._plan.post_copy and stats.iteration > 1:
            self._post_copy = self._ask(lambda domain: domain.migrateStartPostCopy())

    def told(self) -> dict[str, bool]:
        """What it took, as far as it was asked for from here."""
        return {"forced": self._forced, "post_copy": self._post_copy}

    def explain(self) -> None:
        """Raise the reason why the guest has stayed, where it is known."""
        if self._cancelled:
            raise OperationCancelled(step=self._activity.name)
        if self._timed_out:
            raise TaskTimeout(step=self._activity.name)

    def _hurry(self) -> None:
        if self._plan.on_timeout == "force" and not self._forced:
            if self._plan.post_copy:
                self._post_copy = self._ask(lambda domain: domain.migrateStartPostCopy())
            self._forced = self._post_copy or self._ask(lambda domain: domain.suspend())
        else:
            self._timed_out = True
            abort(self._source, self._uuid)

    def _ask(self, what: Any) -> bool:
        """Whether it was done."""

        def ask(domain: Any) -> bool:
            try:
                what(domain)
            except libvirt.libvirtError as error:
                LOG.info("the migration of %s cannot be steered now: %s", self._uuid, message(error))
                return False
            return True

        return bool(self._source.with_domain("steer the migration of", self._uuid, ask))


def abort(source: Hypervisor, uuid: str) -> None:
    """Stop the migration that is under way; none is fine."""

    def stop(domain: Any) -> None:
        try:
            domain.abortJob()
        except libvirt.libvirtError as error:
            if error.get_error_code() not in (*NOT_NOW, libvirt.VIR_ERR_OPERATION_TIMEOUT):
                raise

    source.with_domain("stop the migration of", uuid, stop)
