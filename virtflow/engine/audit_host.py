"""The audit of this host: files, domains, links and filters that belong to nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from virtflow.engine.audit_books import Books, Finding
from virtflow.network.addressing import bridge_draft_name
from virtflow.persistence import operations as ops
from virtflow.storage.instance_directory import TRASH, InstanceDirectories

if TYPE_CHECKING:
    from virtflow.config import Config

_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_INSTANCE = re.compile(_UUID)
_STAGED = re.compile(rf".+\.(?:tmp|injecting|incoming)\.({_UUID})(?:\.tree)?")
_FILTER_PREFIX = "virtflow-"


def host_findings(books: Books, config: Config, services: Mapping[str, Any]) -> Iterator[Finding]:
    """Everything on this host that nobody answers for."""
    directories = InstanceDirectories(config.instances.path)
    yield from _directories(books, directories)
    yield from _trash(books, config.instances.path / TRASH)
    yield from _leftovers(services["image_cache"])
    if config.images.source == "catalog":
        yield from _half_added(services["image_source"])
    root = config.libvirt.embed_root
    if root is None or root.exists():  # asking an embedded driver that was never used would make its directory
        yield from _domains(books, directories, services["hypervisor"])
        yield from _filters(books, services["hypervisor"])
    yield from _links(books, services["taps"])


def _directories(books: Books, directories: InstanceDirectories) -> Iterator[Finding]:
    for path in _entries(directories.instances_path):
        if found := _STAGED.fullmatch(path.name):
            yield from _staged(books, path, found[1])
        elif _INSTANCE.fullmatch(path.name):
            if not books.answered_for_here(path.name, owner := directories.owner(path.name)):
                reason = f"made by {books.number(owner)}, {books.unanswered(path.name)}: rm -r {path}"
                yield Finding("directory", str(path), reason, owner)
            for inner in _entries(path):
                if found := _STAGED.fullmatch(inner.name):
                    yield from _staged(books, inner, found[1])


def _staged(books: Books, path: Path, operation: str) -> Iterator[Finding]:
    if not books.unfinished(operation):
        reason = f"half done by {books.number(operation)}, which will not go on with it: rm -r {path}"
        yield Finding("file", str(path), reason, operation)


def _trash(books: Books, trash: Path) -> Iterator[Finding]:
    for path in _entries(trash):
        row = books.operations.get(path.name)
        if row is None or (row.state == ops.FINISHED and row.outcome not in (ops.SUCCESS, ops.FAILED_FORWARD)):
            reason = f"put there by {books.number(path.name)}, so that no undo will bring it back: rm -r {path}"
            yield Finding("trash", str(path), reason, path.name)


def _leftovers(image_cache: Any) -> Iterator[Finding]:
    for path in image_cache.leftovers():
        yield Finding("file", str(path), f"a download or conversion that nobody goes on with: rm {path}")


def _half_added(catalog: Any) -> Iterator[Finding]:
    for path in catalog.leftovers():
        reason = f"an image that nobody goes on adding or removing; the next `image add` clears it: rm -r {path}"
        yield Finding("file", str(path), reason)


def _domains(books: Books, directories: InstanceDirectories, hypervisor: Any) -> Iterator[Finding]:
    present = {domain.uuid: domain for domain in hypervisor.domains()}
    for domain in present.values():
        if domain.operation is not None and not books.answered_for_here(domain.uuid, domain.operation):
            reason = (
                f"{domain.name} ({domain.state}) was made by {books.number(domain.operation)}, "
                f"{books.unanswered(domain.uuid)}: virsh undefine and virsh destroy {domain.uuid}"
            )
            yield Finding("domain", domain.uuid, reason, domain.operation)
    for row in books.instances.values():
        if row.deleted_at is not None or row.host != books.host or books.busy(row.uuid) or row.vm_state != "ACTIVE":
            continue
        if row.uuid not in present:
            reason = f"{row.name} is ACTIVE, but libvirt has no domain of it: virtflow delete {row.name}"
            yield Finding("instance", row.uuid, reason, row.operation)
        if not directories.path(row.uuid).is_dir():
            reason = f"{row.name} is ACTIVE, but its directory is gone: virtflow delete {row.name}"
            yield Finding("instance", row.uuid, reason, row.operation)


def _filters(books: Books, hypervisor: Any) -> Iterator[Finding]:
    wanted = {_FILTER_PREFIX + port.tap for port in books.ports}
    wanted |= {_FILTER_PREFIX + row.identity for row in books.ledger if books.unfinished(row.operation)}
    for name in hypervisor.filters():
        if name.startswith(_FILTER_PREFIX) and name not in wanted:
            reason = f"no port has the tap {name.removeprefix(_FILTER_PREFIX)}: virsh nwfilter-undefine {name}"
            yield Finding("filter", name, reason)


def _links(books: Books, taps: Any) -> Iterator[Finding]:
    """Only what this database knows of: another virtflow on the machine is not our business."""
    ports = {port.tap for port in books.ports}
    announced = {row.identity: row.operation for row in books.ledger if row.kind == "tap"}
    for tap in taps.list():
        operation = (tap.owner or "::").split(":")[1] or announced.get(tap.name)
        ours = operation in books.operations or tap.name in announced
        if ours and tap.name not in ports and not books.unfinished(operation):
            reason = f"made by {books.number(operation)}, and no port has it: ip link delete {tap.name}"
            yield Finding("tap", tap.name, reason, operation)
    if books.quiet:
        yield from _bridges(books, taps)


def _bridges(books: Books, taps: Any) -> Iterator[Finding]:
    managed = {row.id: row.bridge for row in books.networks}
    drafts = {bridge_draft_name(name) for name in managed.values()}
    for name, alias in taps.bridges().items():
        ours = name in drafts if alias is None else alias.rpartition(":")[2] in managed
        if ours and not taps.bridge_ports(name):
            yield Finding("bridge", name, f"virtflow made it, and nothing is plugged into it: ip link delete {name}")


def _entries(directory: Path) -> list[Path]:
    try:
        return [directory / name for name in sorted(os.listdir(directory))]
    except (FileNotFoundError, NotADirectoryError):
        return []
