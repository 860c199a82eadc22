from __future__ import annotations

import os
import subprocess
from pathlib import Path

from virtflow.images.usage import backing_files


def overlay(path: Path, backing: Path | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1M"], check=True)
    argv = ["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", str(backing), str(path)]
    subprocess.run(argv, check=True)


def test_disks_of_instances_in_the_trash_and_being_built_keep_their_bases(tmp_path: Path) -> None:
    overlay(tmp_path / "instance" / "disk", "/b/1")
    overlay(tmp_path / "instance" / "disk.swap", "/b/2")
    overlay(tmp_path / "instance" / "disk.tmp.operation", "/b/3")
    overlay(tmp_path / "instance.tmp.operation" / "disk", "/b/4")
    overlay(tmp_path / "_trash" / "operation" / "disk", "/b/5")
    overlay(tmp_path / "other" / "disk", "../_base/6")
    assert backing_files(tmp_path, tmp_path / "_base") == {
        *(f"/b/{number}" for number in range(1, 6)),
        f"{tmp_path}/other/../_base/6",
    }


def test_whatever_else_is_there_is_passed_over(tmp_path: Path) -> None:
    overlay(tmp_path / "_base" / "delta", "/b/1")
    directory = tmp_path / "instance"
    directory.mkdir()
    (directory / "console.log").write_text("QFI")
    (directory / "disk").write_bytes(b"QFI\xfb" + b"\xff" * 200)
    (directory / "empty").touch()
    os.symlink(tmp_path / "_base" / "delta", directory / "link")
    os.mkfifo(directory / "fifo")
    assert backing_files(tmp_path, tmp_path / "_base") == set()
