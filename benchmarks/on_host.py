"""What the benchmarks of spawn share within a host's network: a state directory with images, a network, a runner."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from virtflow import Runner, SpawnRequest
from virtflow.config import load
from virtflow.images.catalog import LocalCatalog
from virtflow.persistence.networks import Network

HALT = b"\xfa\xf4\xeb\xfd".ljust(510, b"\0") + b"\x55\xaa"
"""A boot sector that halts: a real guest that costs next to nothing."""


def runner(uri: str, directory: Path, **options: Any) -> Runner:
    """A runner on that libvirt, with a network on the lab's bridge."""
    config = load(
        overrides={"state_dir": str(directory), "libvirt.uri": uri, "libvirt.virt_type": "qemu"},
        env={},
    )
    made = Runner(config, **options)
    network = Network(id=str(uuid.uuid4()), name="net0", cidr="10.77.0.0/24", gateway="10.77.0.1", bridge="brlab")
    made.services["networks"].create(network)
    return made


def add_image(to: Runner, name: str, size: int) -> None:
    """A raw image of ``size`` bytes, nearly all of them holes, that halts when it boots."""
    path = Path(to.config.state_dir, f"{name}.raw")
    with path.open("wb") as image:
        image.write(HALT)
        image.truncate(size)
    LocalCatalog(to.config.images.catalog).add(path, name, "raw")
    path.unlink()


def request(name: str, image: str, **fields: Any) -> SpawnRequest:
    return SpawnRequest(
        name=name,
        image=image,
        vcpus=1,
        memory_mib=32,
        **{"disk_gib": 1, "networks": [{"network": "net0"}], **fields},
    )
