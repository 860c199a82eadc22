"""Volumes that are made of a Glance image on one host of the lab, and boot a guest on another."""

from __future__ import annotations

import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.lab import tgt as lab_tgt
from tests.lab.counting_guest import SECTORS
from tests.lab.hosts import missing
from tests.lab.processes import wait_until
from tests.lab.proxy import Proxy
from tests.lab.serving import SECONDS, Place, halting, place_up
from virtflow.requests import DeleteRequest, VolumeCreateRequest, VolumeDeleteRequest

if TYPE_CHECKING:
    from tests.lab.glance import Glance

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def place(glance_server: Glance) -> Iterator[Place]:
    if reason := missing() or lab_tgt.missing():
        pytest.skip(reason)
    settings = {"images.source": "glance", "glance.endpoint": glance_server.endpoint}
    port = urlsplit(glance_server.endpoint).port
    assert port is not None
    with place_up(Path(tempfile.mkdtemp(prefix="vflab-")), settings) as up, ExitStack() as ways:
        for host in up.hosts.values():
            ways.enter_context(Proxy(port, within=host.call))
        yield up


@pytest.fixture
def image(glance_server: Glance, tmp_path: Path) -> str:
    """The guest that counts its boots."""
    raw, file = tmp_path / "counting.raw", tmp_path / "counting.qcow2"
    raw.write_bytes(SECTORS)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, file], check=True)
    name = f"counting {uuid.uuid4()}"
    glance_server.upload(file, name, "qcow2")
    return name


def test_a_volume_of_a_glance_image_boots_a_guest_on_another_host(place: Place, image: str) -> None:
    place.run(VolumeCreateRequest(name="root", size_gib=1, image=image))
    place.run(halting("web1", boot_volume="root", host=place.compute.name))
    booted_from(place, "root")
    assert place.settled() == []
    place.run(DeleteRequest(name="web1"))
    place.run(VolumeDeleteRequest(name="root"))
    assert place.settled() == []


def test_a_volume_to_boot_from_is_made_of_it_with_the_instance(place: Place, image: str) -> None:
    place.run(halting("web2", image=image, boot_volume_gib=1, delete_volume=True, host=place.compute.name))
    booted_from(place, "web2-root")
    place.run(DeleteRequest(name="web2"))
    assert (place.passwords(), place.tgt.targets()) == ([], [])
    assert place.settled() == []


def booted_from(place: Place, name: str) -> None:
    """The guest has found itself there."""
    assert wait_until(lambda: place.boots(name) == 1, SECONDS, 0.2)
