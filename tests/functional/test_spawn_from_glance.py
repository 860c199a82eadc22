"""Spawning from a real Glance: by name, by id, damaged, hostile, interrupted, unreachable."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.functional.nodes import Console, Node, booting, command_line_up, node_up, small
from tests.lab.processes import wait_until
from virtflow.errors import InvalidRequest, NotFound, OperationFailed

if TYPE_CHECKING:
    from tests.lab.glance import Glance
    from virtflow.hypervisor.hypervisor import Hypervisor
    from virtflow.testing.guest import GuestImage

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(180)]

MIB = 1 << 20


@pytest.fixture
def on_glance(
    embed_root: Path, _session_hypervisor: Hypervisor, glance_server: Glance, tmp_path: Path
) -> Iterator[Node]:
    settings = {"images.source": "glance", "glance.endpoint": glance_server.endpoint}
    with node_up(embed_root, tmp_path, **settings) as node:
        yield node


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """An image that is nothing in particular: its guest finds nothing to boot, and runs all the same."""
    path = tmp_path / "plain.raw"
    path.write_bytes(os.urandom(1024).ljust(MIB, b"\0"))
    return path


def test_a_guest_boots_from_an_image_of_glance_found_by_its_name(
    on_glance: Node, glance_server: Glance, guest_image: GuestImage
) -> None:
    before = on_glance.residue()
    name = f"tiny {uuid.uuid4()}"
    image_id = glance_server.upload(guest_image.disk_qcow2, name, "qcow2", min_disk=1, min_ram=64)
    spawn = on_glance.runner.run(booting("web1", image=name))
    Console(on_glance.directory("web1") / "console.log").wait_ready()
    instance = on_glance.instance("web1")
    assert (instance.image_id, instance.image_name) == (image_id, name)
    on_glance.runner.undo(spawn.id)
    assert on_glance.left_since(before) == []


def test_an_image_that_is_in_the_cache_is_not_fetched_again(
    on_glance: Node, glance_server: Glance, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_id = glance_server.upload(plain, f"plain {uuid.uuid4()}", "raw")
    source = on_glance.runner.services["image_source"]
    fetched: list[str] = []
    read = source.read
    monkeypatch.setattr(source, "read", lambda record, offset: fetched.append(record.id) or read(record, offset))
    on_glance.spawn("web1", image=image_id)
    on_glance.spawn("web2", image=image_id)
    assert fetched == [image_id]
    assert on_glance.state_of("web1") == on_glance.state_of("web2") == "running"


def test_an_unknown_image_and_a_name_that_two_images_have_are_refused(
    on_glance: Node, glance_server: Glance, plain: Path
) -> None:
    before = on_glance.residue()
    with pytest.raises(NotFound, match="image 'nosuch' not found"):
        on_glance.spawn("web1", image="nosuch")
    with pytest.raises(NotFound):
        on_glance.spawn("web1", image=str(uuid.uuid4()))
    name = f"twice {uuid.uuid4()}"
    for _ in range(2):
        glance_server.upload(plain, name, "raw")
    with pytest.raises(InvalidRequest, match="2 images are called"):
        on_glance.spawn("web1", image=name)
    assert on_glance.left_since(before) == []


def test_an_image_that_was_damaged_in_the_store_is_never_published(
    on_glance: Node, glance_server: Glance, plain: Path
) -> None:
    before = on_glance.residue()
    image_id = glance_server.upload(plain, f"damaged {uuid.uuid4()}", "raw")
    with glance_server.stored(image_id).open("r+b") as file:
        file.seek(600)
        file.write(b"damage")
    with pytest.raises(OperationFailed, match=r"FetchBase: cannot fetch image .*: its sha512 checksum does not match"):
        on_glance.spawn("web1", image=image_id)
    assert on_glance.left_since(before) == []
    assert list((on_glance.config.instances.path / "_base").iterdir()) == []


@pytest.mark.parametrize(
    ("offset", "value", "declared", "told"),
    [
        (72, struct.pack(">Q", 2), "qcow2", "corrupt"),
        (72, struct.pack(">Q", 1), "qcow2", "dirty"),
        (24, struct.pack(">Q", 1 << 62), "qcow2", "refused|smaller"),
        (0, b"", "raw", "declared raw, but its content is qcow2"),
    ],
)
def test_a_hostile_image_of_glance_is_refused(
    on_glance: Node, glance_server: Glance, tmp_path: Path, offset: int, value: bytes, declared: str, told: str
) -> None:
    before = on_glance.residue()
    path = tmp_path / "bad"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1G"], check=True)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(value)
    image_id = glance_server.upload(path, f"bad {uuid.uuid4()}", declared)
    with pytest.raises((OperationFailed, InvalidRequest), match=told):
        on_glance.spawn("web1", image=image_id)
    assert on_glance.left_since(before) == []


@pytest.mark.usefixtures("_session_hypervisor")
def test_a_glance_that_is_away_is_one_clear_line(embed_root: Path, tmp_path: Path) -> None:
    settings = {"images.source": "glance", "glance.endpoint": "http://127.0.0.1:9", "glance.timeout": "2"}
    with node_up(embed_root, tmp_path, **settings) as node:
        before = node.residue()
        with pytest.raises(OperationFailed, match=r"ValidateRequest: [^\n]*127\.0\.0\.1[^\n]*$"):
            node.spawn("web1", image="anything")
        assert node.left_since(before) == []


# -- interrupted ------------------------------------------------------------------------------------------------------


class SlowLine:
    """A line to Glance: passes everything on, answers slowly, and remembers what was asked."""

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        self._target = (str(parts.hostname), int(parts.port or 80))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked = b""
        self.pause = 0.01
        threading.Thread(target=self._serve, daemon=True).start()

    def ranges(self) -> list[int]:
        """Where each request for a part of a file began."""
        return [int(start) for start in re.findall(rb"range: bytes=(\d+)-", self.asked, re.IGNORECASE)]

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _address = self._listener.accept()
                far = socket.create_connection(self._target)
                for ends, slow in (((near, far), False), ((far, near), True)):
                    threading.Thread(target=self._pass_on, args=(*ends, slow), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, slow: bool) -> None:
        with source, target, suppress(OSError):
            while chunk := source.recv(64 * 1024):
                if slow:
                    time.sleep(self.pause)
                else:
                    self.asked += chunk
                target.sendall(chunk)
            target.shutdown(socket.SHUT_WR)


@contextmanager
def slow_line(endpoint: str) -> Iterator[SlowLine]:
    line = SlowLine(endpoint)
    try:
        yield line
    finally:
        line.close()


@pytest.mark.usefixtures("_session_hypervisor")
def test_a_download_that_was_killed_is_gone_on_with_where_it_ended(
    embed_root: Path, glance_server: Glance, tmp_path: Path
) -> None:
    content = os.urandom(24 * MIB)
    path = tmp_path / "noise.raw"
    path.write_bytes(content)
    image_id = glance_server.upload(path, f"noise {uuid.uuid4()}", "raw")
    with slow_line(glance_server.endpoint) as line:
        settings = {"VIRTFLOW_IMAGES__SOURCE": "glance", "VIRTFLOW_GLANCE__ENDPOINT": line.endpoint}
        with command_line_up(embed_root, tmp_path, **settings) as command_line:
            base = command_line.config.instances.path / "_base" / hashlib.sha1(image_id.encode()).hexdigest()
            part = base.with_name(f"{base.name}.part")
            words = ["spawn", "web1", "--image", image_id, "--vcpus", "1", "--memory", "32", "--disk", "1"]
            with command_line.running(*words) as spawn:
                assert wait_until(lambda: part.exists() and part.stat().st_size > 4 * MIB, 60, 0.005)
                spawn.send_signal(signal.SIGKILL)
                spawn.wait()
            had = part.stat().st_size
            assert 4 * MIB < had < len(content)
            line.pause = 0
            assert command_line("operation", "resume", "--last").code == 0
            assert line.ranges() == [had]
            assert base.read_bytes() == content
            assert not part.exists()


@pytest.mark.usefixtures("_session_hypervisor")
def test_a_connection_that_breaks_off_is_a_failure_that_leaves_nothing(
    embed_root: Path, glance_server: Glance, tmp_path: Path
) -> None:
    path = tmp_path / "noise.raw"
    path.write_bytes(os.urandom(8 * MIB))
    image_id = glance_server.upload(path, f"noise {uuid.uuid4()}", "raw")
    with slow_line(glance_server.endpoint) as line:
        settings = {"images.source": "glance", "glance.endpoint": line.endpoint, "glance.timeout": "2"}
        with node_up(embed_root, tmp_path, **settings) as node:
            before = node.residue()
            base = node.config.instances.path / "_base"

            def hang() -> None:
                wait_until(lambda: any(part.stat().st_size > MIB for part in base.glob("*.part")), 30, 0.005)
                line.pause = 8

            watcher = threading.Thread(target=hang)
            watcher.start()
            with pytest.raises(OperationFailed, match="FetchBase: cannot fetch image"):
                node.runner.run(small("web1", image=image_id))
            watcher.join()
            assert node.left_since(before) == []
