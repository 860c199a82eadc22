"""The options of volumes."""
# ruff: noqa: RUF009 (``option`` is ``dataclasses.field`` under another name)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from virtflow.config.spec import option


@dataclass(frozen=True, kw_only=True)
class VolumesOptions:
    backends: tuple[str, ...] = option(
        ("local:file",),
        "Volume backends of this host, each as NAME:DRIVER or NAME:DRIVER:SETTING. SETTING is the format for file (raw,"
        " qcow2; default [volumes] format), GROUP or GROUP/POOL for lvm: thick volumes of a volume group, or thin ones"
        " of a pool in it. In the database a backend is called HOST@NAME.",
    )
    path: Path = option("$state_dir/volumes", "Directory of the driver file; each backend has its own below it.")
    format: str = option("raw", "How the driver file keeps volumes.", choices=("raw", "qcow2"))
    lvm_config: str | None = option(None, "What the driver lvm gives to every command of lvm2 as --config.")
    volume_clear: str = option(
        "none",
        "What is done to thick volumes of lvm before their room is given back. New ones read as zeros in any case.",
        choices=("none", "zero"),
    )
    export: str = option(
        "none",
        "What serves volumes to instances of other hosts: tgt (iSCSI with CHAP; raw volumes), nbd (a qemu-nbd for each;"
        " whoever reaches its port can read and write) or nothing.",
        choices=("none", "tgt", "nbd"),
    )
    export_address: str = option("127.0.0.1", "Address of this host at which other hosts find its volumes.")
    iscsi_port: int = option(3260, "Port at which tgtd listens.", low=1, high=65535)
    iqn_prefix: str = option(
        "iqn.2026-01.virtflow:",
        "What the names of iSCSI targets begin with; the volume's name follows.",
        pattern=r"iqn\.\d{4}-\d{2}\.[a-z0-9.-]+:[a-z0-9.:-]*",
        wanted="the beginning of an iSCSI qualified name",
    )
    tgt_control: int = option(0, "Control port of the tgtd that serves volumes (its option -C).", low=0, high=65535)
    nbd_port_min: int = option(10809, "First of the ports for volumes that are served by NBD.", low=1, high=65535)
    nbd_port_max: int = option(11808, "Last of the ports for volumes that are served by NBD.", low=1, high=65535)
    nbd_reconnect_delay: int = option(
        30,
        "Seconds for which a guest of this host waits, with all that it reads and writes, for an NBD server that has"
        " gone. Afterwards, and with libvirt before 9.2 at once, it is halted, and goes on when its server is back.",
        low=0,
        high=3600,
    )
    connector: str = option(
        "qemu",
        "What connects instances of this host to volumes of others: qemu (QEMU's own initiators) or os-brick (the"
        " kernel's iSCSI initiator, which makes block devices; needs the package os-brick).",
        choices=("qemu", "os-brick"),
    )
    capacity_gib: int = option(
        0,
        "GiB that may be allocated on each backend; 0: the size of the file system times [volumes] ratio.",
        low=0,
        high=2**40,
    )
    ratio: float = option(
        1.0, "GiB that may be allocated per GiB of the file system: volumes take room as they fill.", low=0.1, high=1000
    )
    filters: tuple[str, ...] = option(
        ("status", "availability-zone", "retry", "reach", "capacity", "capabilities"),
        "What a backend must pass, in this order. Backends are hosts to a filter, with nothing but disk.",
    )
    weighers: tuple[str, ...] = option(
        ("same-host", "capacity", "allocated-capacity"), "What makes one backend better than another that passed."
    )
    same_host_multiplier: float = option(
        10.0,
        "Weight of being on the host of the instance that is to get the volume: more than all others, unless changed.",
        low=-1000,
        high=1000,
    )
    capacity_multiplier: float = option(
        1.0,
        "Weight of what is left on a backend. Negative: volumes are stacked instead of spread.",
        low=-1000,
        high=1000,
    )
    allocated_capacity_multiplier: float = option(
        1.0, "Weight of the share of a backend that nobody has allocated.", low=-1000, high=1000
    )
    max_attempts: int = option(3, "On how many backends a volume is tried before its operation fails.", low=1, high=100)
    detach_timeout: float = option(
        30.0,
        "Seconds that a running guest has to let go of a volume before its detach is taken back.",
        low=1,
        high=3600,
    )
    trash_retention: int = option(
        86400, "Seconds for which deleted volumes and snapshots can be brought back by undo.", low=0, high=31536000
    )
