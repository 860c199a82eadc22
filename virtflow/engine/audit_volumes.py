"""The audit of volumes: rows that nothing works on any more, and files that belong to none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from virtflow.engine.audit_books import Books, Finding, Row
from virtflow.errors import VirtflowError
from virtflow.persistence import operations as ops
from virtflow.persistence import volume_rows as states
from virtflow.volumes.driver import SERVED, snapshot_name, volume_name

if TYPE_CHECKING:
    from virtflow.config import Config
    from virtflow.volumes.driver import VolumeDriver

GIB = 1 << 30
_TRASH = "trash/"


def volume_findings(books: Books, config: Config, services: Mapping[str, Any]) -> Iterator[Finding]:
    """Everything about volumes, in the database and on this host's backends, that nobody answers for."""
    for kind, rows in (("volume", books.volumes), ("snapshot", books.snapshots)):
        yield from _rows(books, kind, rows)
    yield from _attachments(books)
    if books.volumes and config.libvirt.embed_root is None:  # the embedded driver keeps none
        yield from _libvirt_secrets(books, services["libvirt_secrets"])
    drivers = services["volume_drivers"]
    for backend in drivers.names():
        yield from _contents(books, backend, drivers.get(backend))
        yield from _exports(books, backend, drivers.get(backend))


def _rows(books: Books, kind: str, rows: Mapping[str, Row]) -> Iterator[Finding]:
    for row in rows.values():
        if row.deleted_at is not None:
            continue
        remedy = f"virtflow {'volume snapshot' if kind == 'snapshot' else 'volume'} delete {row.name}"
        if row.held_by is not None and not books.unfinished(row.held_by):
            reason = f"{row.name} is {row.state} by {books.number(row.held_by)}, which is over: {remedy}"
            yield Finding(kind, row.id, reason, row.held_by)
        elif row.state == states.ERROR:
            reason = f"{row.name} could not be taken back altogether: {remedy}"
            yield Finding(kind, row.id, reason, row.operation)


def _attachments(books: Books) -> Iterator[Finding]:
    for row in books.attachments:
        volume = books.volumes.get(row.volume)
        gone = volume is None or volume.deleted_at is not None or not books.lives(row.instance)
        if gone and not books.unfinished(row.operation):
            reason = f"volume {row.volume} or instance {row.instance} is gone: delete the row"
            yield Finding("attachment", row.id, reason, row.operation)


def _libvirt_secrets(books: Books, libvirt_secrets: Any) -> Iterator[Finding]:
    """What libvirt knows on this host for volumes of this database that nobody here has."""
    wanted = {row.volume for row in books.attachments if row.host == books.host}
    for what, known in (("password", libvirt_secrets.usages()), ("key", libvirt_secrets.keys())):
        for identity in known:
            volume = books.volumes.get(identity)
            if volume is not None and identity not in wanted and not books.unfinished(volume.held_by):
                reason = f"libvirt has the {what} of {volume.name}, which no instance here has: virsh secret-undefine"
                yield Finding("libvirt_secret", identity, reason, volume.operation)


def _exports(books: Books, backend: str, driver: VolumeDriver) -> Iterator[Finding]:
    """What is served to other hosts, and whom for; and what is not, although an instance has it."""
    by_name = {volume_name(row.id): row for row in books.volumes.values()}
    wanted = {volume_name(row.volume) for row in books.attachments}
    exported = driver.exported()
    for name in exported:
        volume = by_name.get(name)
        if name not in wanted and not (volume is not None and books.unfinished(volume.held_by)):
            reason = f"{name} of {backend} is served to other hosts, and no instance has it: stop serving it"
            yield Finding("export", f"{backend}/{name}", reason, None if volume is None else volume.operation)
    for row in books.attachments:
        volume = books.volumes.get(row.volume)
        if volume is None or volume.backend != backend or volume.held_by is not None:
            continue
        served = volume_name(row.volume) in exported
        if row.connection and row.connection["kind"] in SERVED and not served:
            reason = (
                f"{volume.name} is not served to {row.host}, where an instance has it; the worker serves it again as "
                f"soon as it and the server run: virtflow doctor"
            )
            yield Finding("export", f"{backend}/{volume_name(row.volume)}", reason, row.operation)


def _contents(books: Books, backend: str, driver: VolumeDriver) -> Iterator[Finding]:
    wanted = {volume_name(row.id): row for row in books.volumes.values()}
    wanted |= {snapshot_name(row.id): row for row in books.snapshots.values()}
    present = driver.contents()
    for name in present:
        if name.startswith(_TRASH):
            yield from _trash(books, backend, name.removeprefix(_TRASH))
            continue
        row = wanted.get(name.partition(".")[0])
        complete = name in wanted
        fine = row is not None and (books.unfinished(row.held_by) or (complete and row.deleted_at is None))
        if not fine:
            reason = f"no volume or snapshot on {backend} has it, and nothing works on it: remove it"
            yield Finding("volume_content", f"{backend}/{name}", reason, None if row is None else row.operation)
    for name, row in wanted.items():
        if row.backend == backend and row.deleted_at is None and row.held_by is None and row.state != states.ERROR:
            yield from _size(name, row, driver)


def _trash(books: Books, backend: str, operation: str) -> Iterator[Finding]:
    row = books.operations.get(operation)
    if row is None or (row.state == ops.FINISHED and row.outcome != ops.SUCCESS):
        reason = f"put into the trash of {backend} by {books.number(operation)}, so that no undo will bring it back"
        yield Finding("volume_trash", f"{backend}/{operation}", reason, operation)


def _size(name: str, row: Row, driver: VolumeDriver) -> Iterator[Finding]:
    """What the books say is there has to be there."""
    try:
        size = driver.size(name)
    except VirtflowError as error:
        yield Finding("volume", row.id, f"{row.name} cannot be measured: {error}", row.operation)
        return
    if size is None:
        yield Finding("volume", row.id, f"{row.name} is {row.state}, but its content is gone", row.operation)
    elif size != row.size_gib * GIB:
        reason = f"{row.name} has {row.size_gib} GiB in the database, and {size} bytes on its backend"
        yield Finding("volume", row.id, reason, row.operation)
