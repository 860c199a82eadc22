"""The libvirt domain: described, defined, started, and all of it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from virtflow.errors import HypervisorError
from virtflow.files.durable import remove_files, write_private
from virtflow.hypervisor import domain_xml as xml
from virtflow.hypervisor.ownership import operation_of
from virtflow.tasks.base import Intent, Task
from virtflow.tasks.domain_description import DomainParts, Identity, domain_spec


class BuildDomainXml(Task):
    """Build the domain's XML and check it against libvirt's schema. Makes nothing; nothing to revert.

    ``waits_for`` are the optional results that this flow's shape has: TaskFlow does not order by optional arguments.
    """

    default_provides = "domain_xml"

    def __init__(self, waits_for: Sequence[str] = ()) -> None:
        super().__init__(requires=waits_for)

    def execute(
        self,
        spec: Mapping[str, Any],
        instance_uuid: str,
        operation: str,
        instance_dir: str,
        vifs: Sequence[Mapping[str, Any]],
        plugged: Sequence[Mapping[str, Any]],
        config_drive: str | None,
        hardware: Mapping[str, Any],
        hypervisor: Any,
        settings: Any,
        root_disk: Mapping[str, Any] | None = None,
        volume_disks: Sequence[Mapping[str, Any]] = (),
        ephemeral_disks: Sequence[Mapping[str, Any]] = (),
        swap_disk: Mapping[str, Any] | None = None,
        kernel: Mapping[str, Any] | None = None,
        ramdisk: Mapping[str, Any] | None = None,
        **_waited_for: Any,
    ) -> str:
        capabilities = hypervisor.capabilities()
        filters = {each["tap"]: each["filter"] for each in plugged}
        parts = DomainParts(
            instance_dir=Path(instance_dir),
            root=root_disk,
            ephemerals=ephemeral_disks,
            swap=swap_disk,
            config_drive=config_drive,
            volumes=volume_disks,
            vifs=[(each, filters.get(each["tap"])) for each in vifs],
            kernel=None if kernel is None else kernel["path"],
            ramdisk=None if ramdisk is None else ramdisk["path"],
        )
        identity = Identity(instance_uuid, operation, settings.host)
        text = xml.build(domain_spec(spec, identity, parts, hardware, capabilities, settings))
        xml.validate(text, capabilities.schema_dir)
        return text

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""


class DefineDomain(Task):
    """Define the domain. Its metadata names this operation.

    Reverts: undefines it, if its metadata names this operation. Defining the same uuid again redefines it.
    """

    default_provides = "defined"

    def intents(self, instance_uuid: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("domain", instance_uuid),)

    def execute(self, domain_xml: str, instance_uuid: str, operation: str, instance_dir: str, hypervisor: Any) -> bool:
        owner = _owner(hypervisor, instance_uuid)
        if owner not in (None, operation):
            raise HypervisorError(action="define", domain=instance_uuid, reason=f"operation {owner} made one", code=0)
        write_private(Path(instance_dir) / "libvirt.xml", domain_xml, operation)
        hypervisor.define(domain_xml)
        return True

    def revert(self, instance_uuid: str, operation: str, instance_dir: str, hypervisor: Any, **_kwargs: Any) -> None:
        if _owner(hypervisor, instance_uuid) == operation:
            hypervisor.undefine(instance_uuid)
        remove_files(Path(instance_dir) / "libvirt.xml")


class StartDomain(Task):
    """Start the guest.

    ``after`` names the result that it waits for. Reverts: pulls its plug, if it is this operation's. One that runs
    already is started.
    """

    default_provides = "started"
    timeout = "boot"

    def __init__(self, after: str = "defined") -> None:
        super().__init__(rebind={"defined": after})

    def execute(self, instance_uuid: str, defined: bool, hypervisor: Any) -> bool:
        hypervisor.start(instance_uuid)
        return defined

    def revert(self, instance_uuid: str, operation: str, hypervisor: Any, **_kwargs: Any) -> None:
        if _owner(hypervisor, instance_uuid) == operation:
            hypervisor.destroy(instance_uuid)


class WaitRunning(Task):
    """Wait until the guest runs. Makes nothing: StartDomain's revert stops it.

    ``after`` names the result that it waits for.
    """

    timeout = "boot"

    def __init__(self, after: str = "started") -> None:
        super().__init__(rebind={"started": after})

    def execute(self, instance_uuid: str, started: bool, hypervisor: Any) -> None:  # noqa: ARG002 - the order
        hypervisor.wait_running(instance_uuid, self.activity)

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""


class RecordDomain(Task):
    """Provide the domain's XML and whether it runs, before anything is done to it. It only reads."""

    default_provides = "domain_record"

    def execute(self, instance: Mapping[str, Any], hypervisor: Any) -> dict[str, Any]:
        state = hypervisor.state(instance["uuid"])
        return {
            "xml": hypervisor.domain_xml(instance["uuid"]),
            "active": state is not None and state.is_active,
        }

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""


class StopDomain(Task):
    """Pull the guest's plug.

    Reverts: starts it again if it ran before. One that is stopped already stays so.
    """

    default_provides = "stopped"
    timeout = "boot"

    def execute(self, instance: Mapping[str, Any], domain_record: Mapping[str, Any], hypervisor: Any) -> bool:
        hypervisor.destroy(instance["uuid"])
        return bool(domain_record["active"])

    def revert(
        self, instance: Mapping[str, Any], domain_record: Mapping[str, Any], hypervisor: Any, **_kwargs: Any
    ) -> None:
        if domain_record["active"]:
            hypervisor.start(instance["uuid"])


class UndefineDomain(Task):
    """Undefine the domain, before its disks go: a domain without disks must not be started by anybody.

    Reverts: defines it again from the recorded XML. Absent is undefined.
    """

    default_provides = "undefined"

    def execute(self, instance: Mapping[str, Any], stopped: bool, hypervisor: Any) -> bool:
        hypervisor.undefine(instance["uuid"])
        return stopped

    def revert(
        self, instance: Mapping[str, Any], domain_record: Mapping[str, Any], hypervisor: Any, **_kwargs: Any
    ) -> None:
        if domain_record["xml"] is not None and hypervisor.domain_xml(instance["uuid"]) is None:
            hypervisor.define(domain_record["xml"])


def _owner(hypervisor: Any, instance_uuid: str) -> str | None:
    """The operation that defined the domain, or None when there is none."""
    text = hypervisor.domain_xml(instance_uuid)
    return None if text is None else operation_of(text) or "somebody else"
