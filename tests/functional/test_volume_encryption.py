"""Encrypted volumes: on a real libvirtd, which keeps the keys that QEMU opens them with."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.functional.node_volumes import file_of, make
from tests.functional.nodes import Console, Node, booting, node_up
from virtflow.engine.audit import audit_of
from virtflow.errors import InvalidRequest, OperationFailed, SecretUnreadable
from virtflow.images.luks import HEADER, payload
from virtflow.replay.files import export
from virtflow.replay.reading import read
from virtflow.requests import (
    SnapshotCreateRequest,
    SnapshotDeleteRequest,
    VolumeAttachRequest,
    VolumeDeleteRequest,
    VolumeDetachRequest,
    VolumeExtendRequest,
)
from virtflow.tasks.volume_encryption import KEY

if TYPE_CHECKING:
    from tests.lab.hosts import LabHost

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(300)]

GIB = 1 << 30
SEEN_SECONDS = 60.0


@pytest.fixture(scope="module")
def on_libvirtd(lab_hosts: tuple[LabHost, ...], catalog: Path) -> Iterator[Node]:
    with node_up(Path("/nowhere"), catalog, **{"libvirt.uri": lab_hosts[0].local_uri}) as up:
        yield up


@pytest.fixture(scope="module")
def embedded(embed_root: Path, catalog: Path) -> Iterator[Node]:
    with node_up(embed_root, catalog) as up:
        yield up


def key_of(node: Node, owner: str) -> bytes:
    secrets = node.runner.services["secrets"]
    key: bytes = secrets.get(secrets.reference(owner, KEY))
    return key


def reads(path: Path, key: bytes, pattern: str) -> bool:
    """Whether qemu-io, with this key, finds the pattern (as in ``read -P``) on the encrypted disk."""
    options = f"driver=luks,key-secret=key,file.filename={path}"
    argv = ["qemu-io", "-r", "-U", "--object", "secret,id=key,file=/dev/stdin", "--image-opts", "-c", f"read {pattern}"]
    done = subprocess.run([*argv, options], input=key, check=False, capture_output=True)
    assert b"read " in done.stdout, done.stderr
    return b"verification failed" not in done.stdout


def wait_size(console: Console, device: str, size: int | None) -> None:
    wanted = None if size is None else f"{device}={size // 1024}"
    deadline = time.monotonic() + SEEN_SECONDS
    while (f"{device}=" in console.line("PARTS")) if wanted is None else wanted not in console.line("PARTS"):
        assert time.monotonic() < deadline, f"{device} is never {size}: {console.text[-500:]}"
        time.sleep(0.2)


def test_a_running_guest_sees_an_encrypted_volume_come_grow_and_go(on_libvirtd: Node) -> None:
    node = on_libvirtd
    node.runner.run(booting("talker", networks=[]))
    console = Console(node.directory("talker") / "console.log").wait_ready()
    made = make(node, "data", encrypted=True)
    assert (made.encryption, file_of(node, made).stat().st_size) == ("luks", GIB)
    node.runner.run(VolumeAttachRequest(name="data", instance="talker"))
    (attachment,) = node.rows("volume_attachments")
    wait_size(console, attachment["device"], payload(GIB))
    assert node.runner.services["libvirt_secrets"].keys() == [made.id]
    node.runner.run(VolumeExtendRequest(name="data", size_gib=2))
    wait_size(console, attachment["device"], payload(2 * GIB))
    assert file_of(node, made).stat().st_size == 2 * GIB
    assert audit_of(node.runner) == []
    node.runner.run(VolumeDetachRequest(name="data"))
    wait_size(console, attachment["device"], None)
    assert node.runner.services["libvirt_secrets"].keys() == []
    node.delete("talker")


def test_an_attach_that_fails_leaves_no_key_with_libvirt(on_libvirtd: Node) -> None:
    from virtflow import faults

    node = on_libvirtd
    node.spawn("quiet", networks=[])
    node.hypervisor.destroy(node.instance("quiet").uuid)  # a guest that halts lets go of nothing
    make(node, "late", encrypted=True)
    before = node.residue()
    with faults.injected("LetInstanceGo:before:raise"), pytest.raises(OperationFailed):
        node.runner.run(VolumeAttachRequest(name="late", instance="quiet"))
    assert (node.left_since(before), node.runner.services["libvirt_secrets"].keys()) == ([], [])
    node.delete("quiet")


def test_an_image_is_encrypted_on_its_way_and_copies_have_the_key_of_their_source(
    embedded: Node, halting_image: Path
) -> None:
    node = embedded
    before = node.residue()
    plain = halting_image.read_bytes()[:512]
    made = make(node, "root", encrypted=True, image="halt")
    assert reads(file_of(node, made), key_of(node, made.id), "-P 0 4k 1020k")
    assert plain not in file_of(node, made).read_bytes()[: HEADER + (1 << 20)]
    node.runner.run(SnapshotCreateRequest(name="kept", volume="root"))
    copy = make(node, "copy", snapshot="kept")
    assert (copy.encryption, key_of(node, copy.id)) == ("luks", key_of(node, made.id))
    node.runner.run(VolumeExtendRequest(name="copy", size_gib=2))
    assert reads(file_of(node, copy), key_of(node, made.id), "-P 0 4k 1020k")
    snapshot = node.runner.services["volume_snapshots"].find("kept", node.config.project)
    node.runner.run(SnapshotDeleteRequest(name="kept"))
    deletes = [node.runner.run(VolumeDeleteRequest(name=name)) for name in ("root", "copy")]
    # Until the purge everything can be brought back, and read.
    node.runner.undo(deletes[0].id)
    assert reads(file_of(node, made), key_of(node, made.id), "-P 0 4k 1020k")
    node.runner.run(VolumeDeleteRequest(name="root"))
    node.runner.purge(older_than=0)
    for owner in (made.id, copy.id, snapshot.id):
        with pytest.raises(SecretUnreadable):
            key_of(node, owner)
    assert audit_of(node.runner) == []
    assert [line for line in node.left_since(before) if line.startswith("left: row secrets")] == []


def test_a_volume_that_cannot_be_made_leaves_no_key(embedded: Node) -> None:
    from virtflow import faults

    before = embedded.residue()
    with faults.injected("FinishVolume:before:raise"), pytest.raises(OperationFailed):
        make(embedded, "never", encrypted=True)
    assert embedded.left_since(before) == []


def test_the_embedded_libvirt_refuses_an_encrypted_volume_and_says_what_it_takes(embedded: Node) -> None:
    embedded.spawn("web1", networks=[])
    make(embedded, "closed", encrypted=True)
    before = embedded.residue()
    with pytest.raises(OperationFailed, match="keeps no secrets, so QEMU cannot open from there what is encrypted"):
        embedded.runner.run(VolumeAttachRequest(name="closed", instance="web1"))
    assert embedded.left_since(before) == []


def test_a_type_can_ask_for_encryption_and_what_is_plain_is_not_copied_into_it(embedded: Node) -> None:
    embedded.runner.services["volume_types"].create("private", {"encryption": "luks"})
    assert make(embedded, "of-type", type="private").encryption == "luks"
    make(embedded, "plain")
    with pytest.raises(InvalidRequest, match="volume 'plain' is not encrypted, and its copies are what it is"):
        make(embedded, "other", source_volume="plain", encrypted=True)


def test_the_key_is_nowhere_to_be_read(on_libvirtd: Node, tmp_path: Path) -> None:
    node = on_libvirtd
    canary = "canary-of-the-volume-key"
    seen: list[bytes] = []
    with looking_at_command_lines(lambda line: seen.append(line) if canary.encode() in line else None):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("virtflow.tasks.volume_encryption.randomness.token_urlsafe", lambda _size: canary)
            made = make(node, "canary", encrypted=True, image="halt")
        node.spawn("holder", networks=[])
        node.runner.run(VolumeAttachRequest(name="canary", instance="holder"))
        uuid = node.instance("holder").uuid
        node.hypervisor.destroy(uuid)
        node.hypervisor.start(uuid)
    node.hypervisor.destroy(uuid)  # a guest that halts lets go of nothing
    assert key_of(node, made.id) == canary.encode()
    assert seen == []
    recording = tmp_path / "canary.vfrec"
    export(read(node.runner.database, node.last().id), recording)
    places = [recording, *(path for path in node.state.rglob("*") if path.is_file() and "_base" not in path.parts)]
    assert [path for path in places if canary.encode() in path.read_bytes()] == []
    node.runner.run(VolumeDetachRequest(name="canary"))
    node.delete("holder")


class looking_at_command_lines:  # noqa: N801 - reads as what it is
    """Every program's command line on this machine, again and again while the block runs."""

    def __init__(self, look: Callable[[bytes], object]) -> None:
        self._look = look
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.01):
            for process in os.listdir("/proc"):
                if process.isdigit():
                    try:
                        self._look(Path("/proc", process, "cmdline").read_bytes())
                    except OSError:
                        continue
