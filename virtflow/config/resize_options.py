"""The options of resizing and of moving instances between hosts."""

from __future__ import annotations

from dataclasses import dataclass

from virtflow.config.spec import option


@dataclass(frozen=True, kw_only=True)
class ResizeOptions:
    confirm_after: int = option(
        0,
        "Seconds after which a worker confirms a resize or migration by itself; 0 leaves that to people.",
        low=0,
        high=31536000,
    )
    shutdown_timeout: float = option(
        60.0, "Seconds that a guest has to shut down before its plug is pulled.", low=0, high=3600
    )
    copy: str = option(
        "overlay",
        "What of a disk goes to another host: overlay (its changes; the base is fetched there), or merged (all of it, "
        "put together before).",
        choices=("overlay", "merged"),
    )
    transport: str = option(
        "rsync",
        "How disks reach another host: rsync (a daemon for each move, with a secret of its own), or ssh (rsync through "
        "ssh, for which root's keys have to be exchanged).",
        choices=("rsync", "ssh"),
    )
    ssh_command: str = option("ssh -o BatchMode=yes", "What rsync runs to reach another host through ssh.")
    address: str | None = option(
        None,
        "Address of this host to which other hosts send disks, and to which its rsync daemons are bound; unset takes "
        "what the host's name resolves to.",
        pattern=r"[0-9A-Za-z][0-9A-Za-z.:-]{0,254}",
        wanted="a host's name or address",
    )
    ports: str = option(
        "49300-49399",
        "TCP ports of this host's rsync daemons, FIRST-LAST.",
        pattern=r"[0-9]{1,5}-[0-9]{1,5}",
        wanted="FIRST-LAST",
    )
