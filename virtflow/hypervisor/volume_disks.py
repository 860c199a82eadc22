"""From how a volume is reached to the disk of a domain that has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from virtflow.hypervisor.domain_xml import DiskSpec, NetworkSource

Source = Mapping[str, Any]
"""``kind`` is file or block (``path``, ``format``), iscsi (``address``, ``port``, ``target``, ``lun``, ``user``) or nbd
(``address``, ``port``, ``target``, ``reconnect``): as a volume's driver or connector gives it. ``encryption``: it is a
LUKS disk."""


def volume_disk(source: Source, bus: str, target: str, serial: str, cache: str) -> DiskSpec:
    """The disk of this serial, which is the volume's id. It names the password with which QEMU logs in, and the key
    with which it opens what is encrypted.

    QEMU's iSCSI initiator waits for a server that has gone, its NBD client gives up: a guest halts then, and sees no
    error (``halts``)."""
    kind, key = source["kind"], serial if source.get("encryption") else None
    if kind in ("file", "block"):
        block = kind == "block"
        return DiskSpec(source["path"], source["format"], bus, target, cache=cache, serial=serial, block=block, key=key)
    name = f"{source['target']}/{source['lun']}" if kind == "iscsi" else source["target"]
    user = source["user"]
    where = (kind, name, source["address"], source["port"])
    secret, reconnect = serial if user else "", source.get("reconnect") or 0
    network = NetworkSource(*where, user=user, secret=secret, reconnect=reconnect)
    halts = kind == "nbd"
    return DiskSpec("", "raw", bus, target, cache=cache, serial=serial, network=network, key=key, halts=halts)
