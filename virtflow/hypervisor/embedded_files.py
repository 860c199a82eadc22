"""What an embedded driver has, read from its files: its directory has room for one process, and that is another one.

libvirt writes both files before it acts on them, so what runs is here; a moment's change may not be.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lxml import etree

from virtflow.errors import InvalidDomainXml
from virtflow.hypervisor.domain_state import DomainRecord, DomainState
from virtflow.hypervisor.domain_xml import METADATA_NAMESPACE
from virtflow.hypervisor.safe_xml import parse


class EmbeddedFiles:
    """The part of a Hypervisor that only looks."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def domains(self) -> list[DomainRecord]:
        """All of them, running or not, ordered by name."""
        found = {record.uuid: record for record in (*self._defined(), *self._running())}
        return sorted(found.values(), key=lambda record: record.name)

    def filters(self) -> list[str]:
        """An embedded driver has none."""
        return []

    def close(self) -> None:
        """Nothing is open."""

    def _defined(self) -> Iterator[DomainRecord]:
        for path in (self._root / "etc" / "qemu").glob("*.xml"):
            if (domain := _read(path)) is not None:
                yield _record(domain, DomainState.SHUTOFF)

    def _running(self) -> Iterator[DomainRecord]:
        """The status of a guest has the pid of its QEMU, which may have died since libvirt last looked."""
        for path in (self._root / "run" / "qemu").glob("*.xml"):
            status = _read(path)
            domain = None if status is None else status.find("domain")
            if status is None or domain is None:
                continue
            pid = int(status.get("pid") or 0)
            if pid and os.path.exists(f"/proc/{pid}"):
                paused = status.get("state") == "paused"
                yield _record(domain, DomainState.PAUSED if paused else DomainState.RUNNING)


def _read(path: Path) -> etree._Element | None:
    try:
        return parse(path.read_text())
    except (OSError, InvalidDomainXml):  # it went, or is just being written
        return None


def _record(domain: etree._Element, state: DomainState) -> DomainRecord:
    owner = domain.find(f"metadata/{{{METADATA_NAMESPACE}}}instance")
    operation = None if owner is None else owner.get("operation")
    return DomainRecord(domain.findtext("uuid") or "", domain.findtext("name") or "", state, operation)
