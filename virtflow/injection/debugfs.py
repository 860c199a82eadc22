"""The guest's file system as debugfs(8) sees it: not mounted, so for those who may not mount.

Only for a file system that was cleanly unmounted: debugfs replays no journal. It knows nothing of this host's files; a
link of the guest leads to another file of the guest. What a path's last part links to is not followed, but refused.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from virtflow.injection.export import RawExport
from virtflow.injection.filesystem import NEW_FILE_MODE, READ_LIMIT, GuestFileError, Unsupported
from virtflow.injection.partitions import INSPECT, Partition, find_partitions, superblock
from virtflow.processes import run

_BANNER = re.compile(rb"debugfs \d[^\n]*\n")
_STAT = re.compile(
    rb"Type: (?P<type>[^\n]*?) +Mode: +(?P<mode>[0-7]+).*?"
    rb"User: +(?P<user>\d+) +Group: +(?P<group>\d+).*? Size: (?P<size>\d+)",
    re.DOTALL,
)
_MISSING = b"File not found"
_REGULAR = "regular"


class DebugfsFilesystem:
    """A GuestFilesystem. ``directory`` is empty and private to this process."""

    def __init__(self, disk: Path, disk_format: str, partition: int, directory: Path) -> None:
        self._export = RawExport(disk, disk_format, directory)
        self._partition = partition
        self._content = directory / "content"
        self._commands = directory / "commands"
        self._device = ""

    def setup(self) -> None:
        if shutil.which("debugfs") is None:
            raise Unsupported("debugfs is not installed")
        self._export.start()
        for partition in self._candidates():
            self._device = f"{self._export.path}?offset={partition.start}"
            if self._partition != INSPECT or self._is_directory("/etc"):
                return
        raise Unsupported("no file system on it has an /etc")

    def teardown(self) -> None:
        self._export.stop()

    def make_path(self, path: str) -> None:
        parts = [part for part in path.split("/") if part]
        for depth in range(1, len(parts) + 1):
            here = "/" + "/".join(parts[:depth])
            if not self._is_directory(here):
                # As the last part of a path: what is there under that name, a dead link say, is in the way.
                if self._stat(here) is not None:
                    raise GuestFileError("has a part that is no directory")
                self._change([f"cd {_quoted(_within(parts[: depth - 1]))}", f"mkdir {_quoted(parts[depth - 1])}"])

    def read(self, path: str) -> bytes:
        found = self._regular(path)
        if found is None:
            raise FileNotFoundError(2, "No such file or directory")
        if int(found["size"]) > READ_LIMIT:
            raise GuestFileError(f"has more than {READ_LIMIT} bytes")
        return self._ask(f"cat {_quoted(path)}")[0]

    def append(self, path: str, content: bytes) -> None:
        before = b"" if self._regular(path) is None else self.read(path)
        self.replace(path, before + content)

    def replace(self, path: str, content: bytes) -> None:
        parent, _, name = path.rpartition("/")
        if not self._is_directory(parent or "/"):
            raise FileNotFoundError(2, "No such file or directory")
        found = self._regular(path)
        mode, user, group = NEW_FILE_MODE, "0", "0"
        if found is not None:
            mode, user, group = int(found["mode"], 8), found["user"], found["group"]
        self._content.write_bytes(content)
        self._change(
            [
                *([] if found is None else [f"rm {_quoted(path)}"]),
                f"cd {_quoted(_within(parent.split('/')))}",
                f"write {self._content} {_quoted(name)}",
                f"sif {_quoted(path)} mode 0{0o100000 | mode:o}",
                f"sif {_quoted(path)} uid {user}",
                f"sif {_quoted(path)} gid {group}",
            ]
        )

    def set_permissions(self, path: str, mode: int) -> None:
        kind = 0o100000 if self._kind(path) == _REGULAR else 0o040000
        self._change([f"sif {_quoted(path)} mode 0{kind | mode:o}"])

    def set_ownership(self, path: str, user: int, group: int) -> None:
        self._kind(path)
        self._change([f"sif {_quoted(path)} uid {user}", f"sif {_quoted(path)} gid {group}"])

    def _candidates(self) -> list[Partition]:
        disk = os.open(self._export.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = [each for each in find_partitions(disk, self._partition) if _usable(disk, each)]
        finally:
            os.close(disk)
        if not found:
            raise Unsupported("its file system was not cleanly unmounted")
        return found

    def _is_directory(self, path: str) -> bool:
        found = self._stat(_within(path.split("/")))
        return found is not None and found["type"] == "directory"

    def _kind(self, path: str) -> str:
        found = self._stat(path)
        if found is None:
            raise FileNotFoundError(2, "No such file or directory")
        if found["type"] not in (_REGULAR, "directory"):
            raise GuestFileError("is not a regular file")
        return found["type"]

    def _regular(self, path: str) -> dict[str, str] | None:
        found = self._stat(path)
        if found is not None and found["type"] != _REGULAR:
            raise GuestFileError("is not a regular file")
        return found

    def _stat(self, path: str) -> dict[str, str] | None:
        out, err = self._ask(f"stat {_quoted(path)}")
        if _MISSING in err:
            return None
        match = _STAT.search(out)
        if match is None:
            raise GuestFileError("cannot be looked at")
        return {key: value.decode() for key, value in match.groupdict().items()}

    def _ask(self, request: str) -> tuple[bytes, bytes]:
        return self._debugfs(["-R", request])

    def _change(self, commands: list[str]) -> None:
        self._commands.write_text("\n".join(commands) + "\n")
        _, err = self._debugfs(["-w", "-f", str(self._commands)])
        if err:
            raise GuestFileError("cannot be written with debugfs")

    def _debugfs(self, arguments: list[str]) -> tuple[bytes, bytes]:
        """What it says, and what it complains of: its exit status is always 0."""
        errors = self._commands.with_name("errors")
        script = 'exec debugfs "$@" 2>"$0"'
        out = run(["sh", "-c", script, errors, *arguments, self._device])
        return out, _BANNER.sub(b"", errors.read_bytes())


def _usable(disk: int, partition: Partition) -> bool:
    found = superblock(disk, partition)
    return found is not None and found.clean and not found.external_journal


def _within(parts: list[str]) -> str:
    """A directory by a path that ends in a dot, so that debugfs follows a link that is its last part."""
    return "/".join(["", *(part for part in parts if part), "."])


def _quoted(path: str) -> str:
    if '"' in path or not path.isprintable():
        raise GuestFileError("has a name that debugfs cannot be told")
    return f'"{path}"'
