"""Exports that were lost with their server are made again: tgtd was restarted, the host was, a qemu-nbd has died.

What is to be served follows from the attachments' rows, their passwords from the encrypted secrets.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from virtflow.errors import VirtflowError
from virtflow.persistence.volume_rows import ATTACHING, COPYING, DETACHING, EXTENDING, MOVING
from virtflow.tasks.volume_exports import password_of
from virtflow.volumes.driver import SERVED, Connection, Reach, volume_name

if TYPE_CHECKING:
    from virtflow.persistence.volumes import Attachment, Volume

LOG = logging.getLogger(__name__)
_WAITING = (ATTACHING, COPYING, DETACHING, EXTENDING, MOVING)


def restore_exports(services: Mapping[str, Any], host: str) -> list[str]:
    """Serve again what instances of other hosts have of this host's volumes and nobody serves; the volumes' names.

    Whatever cannot be served is logged, and tried again next time.
    """
    restored, drivers = [], services["volume_drivers"]
    served: dict[str, list[str]] = {}
    for volume, attachment in _remote(services, host):
        backend, name = str(volume.backend), volume_name(volume.id)
        try:
            if backend not in served:
                served[backend] = drivers.get(backend).exported()
            if name not in served[backend] and _restore(services, volume, attachment):
                LOG.warning("volume %s was not served any more, and is again", volume.name)
                restored.append(name)
        except VirtflowError as error:
            LOG.warning("volume %s is not served: %s", volume.name, error)
    return restored


def _remote(services: Mapping[str, Any], host: str) -> Iterator[tuple[Volume, Attachment]]:
    for attachment in services["volume_attachments"].list():
        if attachment.connection and attachment.connection["kind"] in SERVED:
            volume = services["volumes"].get(attachment.volume)
            if volume.host == host and not _left_alone(volume):
                yield volume, attachment


def _left_alone(volume: Volume) -> bool:
    """Whether an operation is at work on it that may serve it otherwise. Those of ``_WAITING`` would wait for the
    server for ever: their guests do."""
    return volume.held_by is not None and volume.state not in _WAITING


def _restore(services: Mapping[str, Any], volume: Volume, attachment: Attachment) -> bool:
    """Whoever takes an export away forgets the connection before: asked again while nobody can take one away, the rows
    say whether it is still wanted. False when it is not."""
    wanted = True

    def ask() -> bool:
        nonlocal wanted
        found = services["volume_attachments"].of_volume(volume.id)
        left_alone = _left_alone(services["volumes"].get(volume.id))
        wanted = found is not None and found.id == attachment.id and bool(found.connection) and not left_alone
        return wanted

    assert attachment.connection is not None
    connection = Connection.from_dict(attachment.connection)
    password = password_of(attachment.id, attachment.connection, services["secrets"])
    reach = Reach(local=False, user=connection.user, password=password, wanted=ask)
    try:
        made = services["volume_drivers"].get(volume.backend).export(volume_name(volume.id), reach)
    except VirtflowError:
        if wanted:
            raise
        return False
    if replace(made, encryption=connection.encryption) != connection:
        LOG.warning("volume %s is served at %s now, but its guest looks for %s", volume.name, made, connection)
    return True
