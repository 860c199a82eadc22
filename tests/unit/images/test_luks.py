"""Encrypted volumes, made by the real qemu-img."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from virtflow.errors import CommandFailed
from virtflow.images import luks as module
from virtflow.images.luks import Luks, payload

# To make a header QEMU measures how fast it derives keys: seconds of a processor, however busy that is.
pytestmark = pytest.mark.timeout(300)

KEY = b"a key that is long enough"
MIB = 1 << 20


def read(path: Path, key: bytes, pattern: str) -> subprocess.CompletedProcess[bytes]:
    options = f"driver=luks,key-secret=key,file.filename={path}"
    argv = [
        "qemu-io",
        "-r",
        "--object",
        "secret,id=key,file=/dev/stdin",
        "--image-opts",
        "-c",
        f"read {pattern}",
        options,
    ]
    return subprocess.run(argv, input=key, check=False, capture_output=True)


def test_a_volume_keeps_its_size_and_what_is_written_to_it_needs_the_key(tmp_path: Path) -> None:
    volume, image = tmp_path / "volume, encrypted", tmp_path / "image"
    size = 16 * MIB
    volume.write_bytes(bytes(size))
    image.write_bytes(b"\7" * MIB + bytes(MIB))
    Luks().format(volume, size, KEY)
    Luks().fill(volume, image, 2 * MIB, KEY)
    assert volume.stat().st_size == size
    assert b"\7" * 64 not in volume.read_bytes()
    plain = tmp_path / "plain"
    volume.rename(plain)  # qemu-io takes a comma for the end of the name
    assert b"verification failed" not in read(plain, KEY, "-P 7 0 1M").stdout
    assert b"verification failed" not in read(plain, KEY, "-P 0 1M 1M").stdout
    assert b"Invalid password" in read(plain, b"another one", "0 1M").stderr
    assert payload(size) == size - module.HEADER


def test_a_host_that_is_too_busy_to_measure_itself_is_asked_again(tmp_path: Path) -> None:
    counter = tmp_path / "asked"
    program = tmp_path / "qemu-img"
    program.write_text(
        f'#!/bin/sh\necho >>{counter}\n[ $(wc -l <{counter}) -ge 3 ] && exit 0\necho "{module._TOO_BUSY}" >&2\nexit 1\n'
    )
    program.chmod(0o755)
    Luks(str(program)).format(tmp_path / "volume", 16 * MIB, KEY)
    assert counter.read_text() == "\n" * 3


def test_another_failure_is_not_tried_again(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="No such file or directory"):
        Luks().format(tmp_path / "nowhere" / "volume", 16 * MIB, KEY)
