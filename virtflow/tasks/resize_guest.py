"""The guest that is resized: shut down on its host, and brought back there if the operation is reverted.

Before it is started again, nothing that this operation has made may run, or be in the place of what it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from virtflow.errors import HypervisorError
from virtflow.hypervisor.ownership import operation_of
from virtflow.tasks.base import Debt, Task
from virtflow.tasks.domain import DefineDomain
from virtflow.tasks.network import plug


class ShutDownGuest(Task):
    """Shut the guest down, and pull its plug when it does not within ``[resize] shutdown_timeout``.

    Reverts: starts it again if it ran before, once nothing of this operation can run any more: a debt until then. One
    that is stopped already stays so.
    """

    default_provides = "stopped"

    def execute(
        self,
        instance_uuid: str,
        domain_record: Mapping[str, Any],
        hypervisor: Any,
        resize_options: Any,
    ) -> bool:
        hypervisor.shutdown(instance_uuid, resize_options.shutdown_timeout, self.activity)
        return bool(domain_record["active"])

    def revert(
        self,
        instance_uuid: str,
        operation: str,
        domain_record: Mapping[str, Any],
        hypervisor: Any,
        directories: Any,
        ledger: Any,
        hosts: Any,
        settings: Any,
        **_kwargs: Any,
    ) -> Debt | None:
        if not domain_record["active"]:
            return None
        owing = {row.host for row in ledger.debts(operation)} - {settings.host}
        elsewhere = sorted(host for host in owing if not hosts.is_fenced(host))
        if elsewhere:
            return Debt(error=f"the guest may still run on {', '.join(elsewhere)}")
        if directories.owner(instance_uuid) == operation or made_by(hypervisor, instance_uuid, operation):
            return Debt(error="what it was resized to is still in its place")
        hypervisor.start(instance_uuid)
        return None


class UndefineSource(Task):
    """Undefine the domain, to make room for the one that it becomes on the same host.

    Reverts: defines it again from the recorded XML, once the other one is gone: a debt until then. Absent is undefined.
    """

    default_provides = "undefined"

    def execute(self, instance_uuid: str, stopped: bool, operation: str, hypervisor: Any) -> bool:
        if not made_by(hypervisor, instance_uuid, operation):
            hypervisor.undefine(instance_uuid)
        return stopped

    def revert(
        self,
        instance_uuid: str,
        operation: str,
        domain_record: Mapping[str, Any],
        hypervisor: Any,
        **_kwargs: Any,
    ) -> Debt | None:
        if made_by(hypervisor, instance_uuid, operation):
            return Debt(error="what it was resized to is still defined")
        if domain_record["xml"] is not None and hypervisor.domain_xml(instance_uuid) is None:
            hypervisor.define(domain_record["xml"])
        return None


class DefineResized(DefineDomain):
    """DefineDomain of what the instance has become.

    Reverts: as DefineDomain does, but the file beside the disks goes with their directory: by then the directory of
    this name may be the one of before.
    """

    def revert(self, instance_uuid: str, operation: str, hypervisor: Any, **_kwargs: Any) -> None:  # type: ignore[override]
        if made_by(hypervisor, instance_uuid, operation):
            hypervisor.undefine(instance_uuid)


class RetireDomain(Task):
    """Undefine the domain that the instance has left behind. HypervisorError if it runs, which it must not.

    Reverts: defines it again from the recorded XML. Absent is undefined.
    """

    default_provides = "undefined"

    def execute(self, instance_uuid: str, domain_record: Mapping[str, Any], hypervisor: Any) -> bool:
        if domain_record["active"]:
            reason = "it runs, although the instance is on another host"
            raise HypervisorError(action="undefine", domain=instance_uuid, reason=reason, code=0)
        hypervisor.undefine(instance_uuid)
        return True

    def revert(self, instance_uuid: str, domain_record: Mapping[str, Any], hypervisor: Any, **_kwargs: Any) -> None:
        if domain_record["xml"] is not None and hypervisor.domain_xml(instance_uuid) is None:
            hypervisor.define(domain_record["xml"])


class KeepVifs(Task):
    """PlugVifs where the instance stays on its host: its taps are there, and are only made sure of.

    Reverts: nothing. They are those of before.
    """

    default_provides = "plugged"

    def execute(
        self, vifs: Sequence[Mapping[str, Any]], taps: Any, hypervisor: Any, settings: Any
    ) -> list[dict[str, Any]]:
        return plug(vifs, taps, hypervisor, settings)

    def revert(self, **_kwargs: Any) -> None:
        """They are those of before."""


def made_by(hypervisor: Any, instance_uuid: str, operation: str) -> bool:
    """Whether there is a domain of the instance, and the operation has made it."""
    xml = hypervisor.domain_xml(instance_uuid)
    return xml is not None and operation_of(xml) == operation
