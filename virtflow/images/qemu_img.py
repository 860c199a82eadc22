"""qemu-img, never left to guess: every call names the format, every path is absolute.

The format is never probed, because a guest can write any header on a raw disk (CVE-2026-24708), and an absolute path
cannot be read as ``json:`` or ``nbd:`` (CVE-2024-4467). Images that come from outside pass ``inspection`` first.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virtflow.activity import IDLE, Activity
from virtflow.errors import CommandFailed
from virtflow.images.progress import watch_growth
from virtflow.processes import Limits, run

_LEAKED_CLUSTERS = 3
"""Exit status of ``qemu-img check`` for clusters that are lost but harm nothing (qemu-img(1))."""

INSPECTION_LIMITS = Limits(address_space=1 << 30, cpu_seconds=30)
"""For calls whose work a header decides (CVE-2015-5162); a conversion's depends on the image's size."""


@dataclass(frozen=True)
class DiskInfo:
    """What qemu-img reads in an image's header. Sizes in bytes; ``actual_size`` is what it takes on the host."""

    format: str
    virtual_size: int
    actual_size: int
    backing_file: str | None
    backing_format: str | None
    encrypted: bool
    data_file: str | None
    dirty: bool
    corrupt: bool


class QemuImg:
    """The qemu-img program. Every method raises CommandFailed when it fails."""

    def __init__(self, executable: str = "qemu-img", limits: Limits = INSPECTION_LIMITS) -> None:
        self._executable = executable
        self._limits = limits

    def info(self, path: Path | str, format: str, activity: Activity = IDLE) -> DiskInfo:  # noqa: A002
        """Read the header as ``format``; works beside a running guest (no lock is taken)."""
        out = run(
            [self._executable, "info", "-U", "--output=json", "-f", format, _absolute(path)],
            activity=activity,
            limits=self._limits,
        )
        return _disk_info(json.loads(out))

    def create_overlay(
        self, path: Path | str, backing: Path | str, backing_format: str, size_bytes: int, activity: Activity = IDLE
    ) -> None:
        """Make a qcow2 file over ``backing``, which is recorded with its format."""
        backing_options = ["-F", backing_format, "-b", _absolute(backing)]
        self._create(path, "qcow2", size_bytes, backing_options, activity)

    def create(self, path: Path | str, format: str, size_bytes: int, activity: Activity = IDLE) -> None:  # noqa: A002
        """Make an empty disk."""
        self._create(path, format, size_bytes, [], activity)

    def _create(
        self, path: Path | str, disk_format: str, size_bytes: int, options: list[str], activity: Activity
    ) -> None:
        run(
            [self._executable, "create", "-q", "-f", disk_format, *options, _absolute(path), str(size_bytes)],
            activity=activity,
            limits=self._limits,
        )

    def convert(
        self,
        source: Path | str,
        source_format: str,
        target: Path | str,
        target_format: str,
        activity: Activity = IDLE,
        *,
        total_bytes: int | None = None,
        opened: bool = False,
    ) -> None:
        """Copy an image into another format; zeros become holes. ``opened``: a guest that is halted may have it open.

        Progress is what the target has grown to, of ``total_bytes`` (the virtual size), because a program's output
        is only seen at its end.
        """
        with watch_growth(activity, Path(target), total_bytes) as watching:
            run(
                [
                    *(self._executable, "convert", "-f", source_format, "-O", target_format),
                    # The default (unsafe) would ignore write errors that only a flush reports.
                    *(*_shared(opened), "-t", "writeback", _absolute(source), _absolute(target)),
                ],
                activity=watching,
            )

    def convert_onto(
        self,
        source: Path | str,
        source_format: str,
        target: Path | str,
        target_format: str,
        activity: Activity = IDLE,
        *,
        blank: bool,
        opened: bool = False,
    ) -> None:
        """Copy an image onto a device that is there, and at least as large.

        Zeros are written, by the device's own means where it has them; not onto one that is ``blank``: it reads as
        zeros, and holes stay holes. ``opened``: a guest that is halted may have the source open.
        """
        onto = ["-n", *(["--target-is-zero"] if blank else []), "-f", source_format, "-O", target_format]
        # Not through this host's memory, which others need more; in any order, because a copy that fails is no volume.
        paths = [_absolute(source), _absolute(target)]
        command = [self._executable, "convert", *_shared(opened), *onto, "-W", "-t", "none", *paths]
        run(command, activity=activity)

    def resize(self, path: Path | str, format: str, size_bytes: int, activity: Activity = IDLE) -> None:  # noqa: A002
        """Let the disk grow to ``size_bytes``; qemu-img itself refuses to shrink."""
        run(
            [self._executable, "resize", "-q", "-f", format, _absolute(path), str(size_bytes)],
            activity=activity,
            limits=self._limits,
        )

    def rebase(
        self,
        path: Path | str,
        backing: Path | str,
        backing_format: str,
        activity: Activity = IDLE,
        *,
        same_content: bool = False,
    ) -> None:
        """Let the qcow2 file ``path`` stand on ``backing``.

        With ``same_content`` only the name in its header changes, and nothing but ``path`` is opened. Otherwise both
        backing files are read, and where they differ the old one's content is copied into ``path``.
        """
        mode = ["-u"] if same_content else ["-t", "writeback"]
        names = ["-F", backing_format, "-b", _absolute(backing), _absolute(path)]
        run([self._executable, "rebase", "-q", "-f", "qcow2", *mode, *names], activity=activity)

    def check(self, path: Path | str, format: str, activity: Activity = IDLE) -> None:  # noqa: A002
        """Raise CommandFailed when the image's metadata is corrupt; leaked clusters are passed over."""
        try:
            run([self._executable, "check", "-q", "-f", format, _absolute(path)], activity=activity)
        except CommandFailed as error:
            if error.status != _LEAKED_CLUSTERS:
                raise


def _shared(opened: bool) -> list[str]:
    return ["--force-share"] if opened else []


def _absolute(path: Path | str) -> str:
    text = os.fspath(path)
    if not os.path.isabs(text):
        raise ValueError(f"qemu-img needs an absolute path, not {text!r}")
    return text


def _disk_info(plain: dict[str, Any]) -> DiskInfo:
    specific = plain.get("format-specific", {}).get("data", {})
    return DiskInfo(
        format=plain["format"],
        virtual_size=plain["virtual-size"],
        actual_size=plain.get("actual-size", 0),
        backing_file=plain.get("full-backing-filename") or plain.get("backing-filename"),
        backing_format=plain.get("backing-filename-format"),
        encrypted=bool(plain.get("encrypted", False)),
        data_file=specific.get("data-file"),
        dirty=bool(plain.get("dirty-flag", False)),
        corrupt=bool(specific.get("corrupt", False)),
    )
