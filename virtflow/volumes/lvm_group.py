"""A volume group and its logical volumes, through the commands of lvm2 (lvm(8))."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virtflow.activity import IDLE, Activity
from virtflow.processes import run

_UNSEEN = ("-Wn",)
"""Signatures of whoever had the blocks before are not looked for. Snapshots know no such option."""
_STEP = 256 << 20
"""Bytes that are zeroed in one call, after which a cancel is seen."""


@dataclass(frozen=True)
class LogicalVolume:
    """``size`` in bytes."""

    name: str
    size: int
    tags: tuple[str, ...]


class VolumeGroup:
    """``config`` is given to every command as ``--config``. Errors are CommandFailed."""

    def __init__(self, name: str, config: str = "") -> None:
        self.name = name
        self._config = ["--config", config] if config else []

    def path(self, volume: str) -> Path:
        return Path("/dev") / self.name / volume

    def volumes(self) -> dict[str, LogicalVolume]:
        rows = self._report("lvs", "lv", "lv_name,lv_size,lv_tags")
        found = (LogicalVolume(row["lv_name"], int(row["lv_size"]), _tags(row["lv_tags"])) for row in rows)
        return {each.name: each for each in found}

    def room(self) -> tuple[int, int]:
        """Bytes in all, and of these free."""
        (row,) = self._report("vgs", "vg", "vg_size,vg_free")
        return int(row["vg_size"]), int(row["vg_free"])

    def pool_room(self, pool: str) -> tuple[int, int]:
        """The same of a thin pool."""
        (row,) = self._report("lvs", "lv", "lv_size,data_percent", pool)
        size = int(row["lv_size"])
        return size, int(size * (1 - float(row["data_percent"] or 0) / 100))

    def create(self, volume: str, size: int, tag: str, activity: Activity = IDLE) -> None:
        """A thick one, with whatever was on the disks before."""
        self._run("lvcreate", ["-L", f"{size}b", "-Zn", *_UNSEEN, *_named(volume, tag), self.name], activity)

    def create_thin(self, volume: str, size: int, pool: str, tag: str, activity: Activity = IDLE) -> None:
        """One that reads as zeros."""
        wanted = ["--type", "thin", "-V", f"{size}b", "--thinpool", pool, *_UNSEEN, *_named(volume, tag), self.name]
        self._run("lvcreate", wanted, activity)

    def snapshot_thin(self, volume: str, origin: str, tag: str, activity: Activity = IDLE) -> None:
        """A thin volume that shares the blocks of another, and needs it no more."""
        wanted = ["-s", "-kn", "-ay", *_named(volume, tag), f"{self.name}/{origin}"]
        self._run("lvcreate", wanted, activity)

    def extend(self, volume: str, size: int, activity: Activity = IDLE) -> None:
        self._run("lvextend", ["-L", f"{size}b", f"{self.name}/{volume}"], activity)

    def reduce(self, volume: str, size: int, activity: Activity = IDLE) -> None:
        self._run("lvreduce", ["-f", "-L", f"{size}b", f"{self.name}/{volume}"], activity)

    def rename(self, volume: str, name: str) -> None:
        self._run("lvrename", [self.name, volume, name])

    def remove(self, volume: str) -> None:
        self._run("lvremove", ["-f", f"{self.name}/{volume}"])

    def tag(self, volume: str, *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> None:
        changes = [f"--addtag={tag}" for tag in add] + [f"--deltag={tag}" for tag in remove]
        self._run("lvchange", [*changes, f"{self.name}/{volume}"])

    def zero(self, volume: str, start: int, length: int, activity: Activity = IDLE) -> None:
        """Overwrite with zeros, by the device's own means where it has them."""
        if length:
            span = ["--offset", str(start), "--length", str(length), "--step", str(_STEP)]
            run(["blkdiscard", "--force", "--zeroout", *span, self.path(volume)], activity=activity)

    def _run(self, command: str, words: Sequence[str], activity: Activity = IDLE) -> bytes:
        return run([command, "-q", "-y", *self._config, *words], activity=activity)

    def _report(self, command: str, kind: str, columns: str, volume: str = "") -> list[dict[str, Any]]:
        options = ["--reportformat", "json", "--units", "b", "--nosuffix", "-o", columns]
        out = self._run(command, [*options, f"{self.name}/{volume}" if volume else self.name])
        found: list[dict[str, Any]] = json.loads(out)["report"][0][kind]
        return found


def _named(volume: str, tag: str) -> list[str]:
    return ["-n", volume, "--addtag", tag]


def _tags(text: str) -> tuple[str, ...]:
    return tuple(tag for tag in text.split(",") if tag)
