"""The config drive: a small iso9660 or vfat image, labelled ``config-2``, that the guest's agent looks for.

It carries passwords and keys in clear (there is no other way to tell a guest), so nobody but root may read it from its
first byte on, and no error quotes what is in it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from virtflow.activity import IDLE, Activity
from virtflow.errors import CommandFailed, ConfigDriveError, ConfigurationError
from virtflow.files.durable import sync
from virtflow.metadata.iso_image import VOLUME_ID, iso_image
from virtflow.metadata.vfat_image import make_vfat
from virtflow.processes import run

ISO9660 = "iso9660"
VFAT = "vfat"

_PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}(/[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}){0,6}")
"""What may be a path in the tree: within Joliet's 64 characters and ISO 9660's 8 levels, and never ``..``."""

_MKISOFS_OPTIONS = (
    *("-quiet", "-ldots", "-allow-lowercase", "-allow-multidot", "-l", "-publisher", "virtflow"),
    *("-J", "-r", "-V", VOLUME_ID),
)


class ConfigDriveWriter:
    """Writes config drives: iso9660 in this process or with ``mkisofs_cmd``, vfat with mkfs.vfat and mtools.

    ``mkisofs_cmd`` is a command line that takes mkisofs' options and writes the image to its standard output:
    ``genisoimage``, ``mkisofs`` or ``xorriso -as mkisofs``. Without it the same tree is always the same image.
    """

    def __init__(self, mkisofs_cmd: str | None = None) -> None:
        self._mkisofs = shlex.split(mkisofs_cmd) if mkisofs_cmd else None

    def write(
        self,
        tree: Mapping[str, bytes],
        target: Path,
        operation: str,
        activity: Activity = IDLE,
        *,
        drive_format: str = ISO9660,
    ) -> None:
        """Put the drive at ``target``, whole or not at all, in place of what is there.

        ``tree`` is content by relative path. A process killed in the middle leaves ``<target>.tmp.<operation>`` (and,
        where a program writes it, the directory ``<target>.tmp.<operation>.tree``); the next write removes them.
        Raises ConfigDriveError; ConfigurationError for a format that is neither iso9660 nor vfat.
        """
        fill = self._filler(tree, drive_format, activity)
        for path in tree:
            if not _PATH.fullmatch(path):
                raise ConfigDriveError(reason=f"{path[:80]!a} cannot be a path on it")
        try:
            self.discard(target, operation)
            _publish(fill, _staged(target, operation), target)
        except OSError as error:
            raise ConfigDriveError(reason=error.strerror or type(error).__name__) from error
        except CommandFailed as error:
            raise ConfigDriveError(reason=str(error)) from error

    def discard(self, target: Path, operation: str) -> None:
        """Remove what a killed ``write`` of this operation left beside ``target``; nothing there is fine."""
        staged = _staged(target, operation)
        staged.unlink(missing_ok=True)
        shutil.rmtree(_directory_of(staged), ignore_errors=True)

    def _filler(self, tree: Mapping[str, bytes], drive_format: str, activity: Activity) -> Callable[[int, Path], None]:
        """What writes the image into the file that is open as a descriptor, and has this path."""

        def iso9660(descriptor: int, staged: Path) -> None:
            if self._mkisofs is None:
                _write(descriptor, iso_image(tree))
                return
            with _unpacked(tree, staged) as directory:
                _write(descriptor, run([*(self._mkisofs), *_MKISOFS_OPTIONS, directory], activity=activity))

        def vfat(descriptor: int, staged: Path) -> None:
            with _unpacked(tree, staged) as directory:
                make_vfat(descriptor, staged, directory, activity)

        fillers = {ISO9660: iso9660, VFAT: vfat}
        if drive_format not in fillers:
            reason = f"{drive_format[:40]!a} is neither {ISO9660} nor {VFAT}"
            raise ConfigurationError(group="config_drive", option="format", reason=reason)
        return fillers[drive_format]


def _staged(target: Path, operation: str) -> Path:
    return target.with_name(f"{target.name}.tmp.{operation}")


def _directory_of(staged: Path) -> Path:
    return staged.with_name(f"{staged.name}.tree")


@contextmanager
def _unpacked(tree: Mapping[str, bytes], staged: Path) -> Iterator[Path]:
    """The tree as files in a private directory, for programs that want one.

    Most of a tree is the same documents once more for each version: those are links to the first, which costs half.
    """
    directory = _directory_of(staged)
    directory.mkdir(mode=0o700)
    try:
        written: dict[bytes, Path] = {}
        for parent in sorted({(directory / path).parent for path in tree}):
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, content in tree.items():
            file = directory / path
            if content in written:
                file.hardlink_to(written[content])
            else:
                file.write_bytes(content)
                written[content] = file
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _write(descriptor: int, image: bytes) -> None:
    view = memoryview(image)
    while view:
        view = view[os.write(descriptor, view) :]


def _publish(fill: Callable[[int, Path], None], staged: Path, target: Path) -> None:
    descriptor = os.open(staged, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            fill(descriptor, staged)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(staged, target)
    except BaseException:
        with contextlib.suppress(OSError):
            staged.unlink()
        raise
    sync(target.parent)
