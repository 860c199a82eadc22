"""The options of live migration."""

from __future__ import annotations

from dataclasses import dataclass

from virtflow.config.spec import option


@dataclass(frozen=True, kw_only=True)
class MigrationOptions:
    address: str | None = option(
        None,
        "Address at which other hosts reach this host's libvirt and to which they send guests; unset takes the host's "
        "name.",
        pattern=r"[0-9A-Za-z][0-9A-Za-z.:-]{0,254}",
        wanted="a host's name or address",
    )
    transport: str = option(
        "tls",
        "How other hosts speak with this host's libvirt: tls (certificates of both), ssh (keys of root), or tcp (in "
        "the clear, and for everybody who reaches the port).",
        choices=("tls", "ssh", "tcp"),
    )
    native_tls: bool = option(
        True, "Encrypt the guests' memory and disks on their way from this host, with the certificates of QEMU."
    )
    port: int = option(
        0, "TCP port at which memory arrives here; 0 leaves it to qemu.conf (migration_port_min).", low=0, high=65535
    )
    disks_port: int = option(
        0, "TCP port at which disks arrive here; 0 leaves it to qemu.conf (migration_port_min).", low=0, high=65535
    )
    bandwidth: int = option(
        0, "MiB per second that a migration from this host may take; 0 is no limit.", low=0, high=2**20
    )
    downtime: int = option(
        300,
        "Milliseconds for which a guest may be halted at the end; QEMU aims at it. 0 leaves it to QEMU.",
        low=0,
        high=2_000_000,
    )
    timeout: float = option(
        0.0, "Seconds after which a migration that has not ended is given up or forced; 0 never.", low=0, high=604800
    )
    on_timeout: str = option(
        "abort",
        "What follows after the timeout: abort (the guest stays), or force (it is halted, or switched to post-copy "
        "where that is allowed, until it has arrived; after as long again it is aborted).",
        choices=("abort", "force"),
    )
    auto_converge: bool = option(True, "Slow down a guest that changes its memory faster than it can be sent.")
    post_copy: bool = option(
        False,
        "Let the guest run on the destination after its memory was sent once, and fetch the rest from there. It always "
        "ends; but when the link or either host breaks meanwhile, the guest is lost up to what is on its disks.",
    )
