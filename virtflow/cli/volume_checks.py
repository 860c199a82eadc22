"""What ``virtflow doctor`` looks at for volumes. As in ``host_checks``, none changes the host."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING

from virtflow.cli.finding import INFO, MISSING, OK, Finding, program
from virtflow.errors import HostLacks, VirtflowError
from virtflow.volumes.drivers import backend_parts, lvm_place

if TYPE_CHECKING:
    from virtflow.config import Config

_SERVER, _LVM = "volume server", "lvm"
_SECONDS = 3.0


def volume_server(config: Config) -> Finding:
    """What serves volumes to other hosts: tgtd has to run, and to listen where they look for it."""
    if config.volumes.export == "none":
        return Finding(_SERVER, OK, "switched off: volumes are reached on their own host")
    if config.volumes.export == "nbd":
        return program(_SERVER, ("qemu-nbd",), "qemu-utils")
    found = program(_SERVER, ("tgtadm",), "tgt")
    return _tgtd(config) if found.status == OK else found


def _tgtd(config: Config) -> Finding:
    from virtflow.volumes.exports.tgt_daemon import TgtDaemon

    options = config.volumes
    place = f"{options.export_address}, port {options.iscsi_port}"
    try:
        targets = TgtDaemon(options.tgt_control).targets()
        socket.create_connection((options.export_address, options.iscsi_port), _SECONDS).close()
    except HostLacks as error:
        return Finding(_SERVER, MISSING, f"{error.missing} is missing", "systemctl start tgt")
    except VirtflowError as error:
        return Finding(_SERVER, MISSING, str(error), "run virtflow as root")
    except OSError as error:
        portal = f"portal={options.export_address}:{options.iscsi_port}"
        fix = f"tgtadm -C {options.tgt_control} --lld iscsi --op new --mode portal --param {portal}"
        return Finding(_SERVER, MISSING, f"tgtd does not listen at {place}: {error}", fix)
    if _is_loopback(options.export_address):
        detail = f"tgtd listens at {place}, where no other host finds it"
        return Finding(_SERVER, INFO, detail, "set [volumes] export_address")
    return Finding(_SERVER, OK, f"tgtd listens at {place}, and serves {len(targets)}")


def lvm(config: Config) -> Finding:
    """Only where a backend uses it: its programs, its volume groups and their thin pools."""
    parts = [backend_parts(entry) for entry in config.volumes.backends]
    places = [lvm_place(name, setting) for name, driver, setting in parts if driver == "lvm"]
    if not places:
        return Finding(_LVM, OK, "no volume backend uses it")
    wanted = [("lvcreate", "lvm2"), ("blkdiscard", "util-linux")]
    if any(pool for _group, pool in places):
        wanted.append(("thin_check", "thin-provisioning-tools"))
    for name, package in wanted:
        found = program(_LVM, (name,), package)
        if found.status != OK:
            return found
    each = [_group(config, *place) for place in places]
    lacking = [finding for finding in each if finding.status != OK]
    return lacking[0] if lacking else Finding(_LVM, OK, ", ".join(finding.detail for finding in each))


def _group(config: Config, name: str, pool: str) -> Finding:
    from virtflow.volumes.lvm_group import VolumeGroup

    group = VolumeGroup(name, config.volumes.lvm_config or "")
    what, fix = f"volume group {name}", f"vgcreate {name} DEVICE"
    try:
        _size, free = group.room()
        if pool:
            what, fix = f"thin pool {name}/{pool}", f"lvcreate --type thin-pool -l 90%FREE -n {pool} {name}"
            _size, free = group.pool_room(pool)
    except VirtflowError as error:
        return Finding(_LVM, MISSING, f"{what} cannot be used: {error}", fix)
    return Finding(_LVM, OK, f"{what} ({free / 2**30:.1f} GiB free)")


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
