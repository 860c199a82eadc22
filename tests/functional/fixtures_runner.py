"""Fixtures for operations from end to end, on real libvirt and QEMU.

``catalog``       a directory of images for everybody, to be read only: ``tiny`` boots and talks, ``halt`` halts
``node``          a host whose operations run in this process, gone after the test
``command_line``  a host whose operations run in processes of their own, gone after the test
``glance_server`` a real Glance
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab.glance import Glance, GlanceMissing, default_cache, glance
from virtflow.images.catalog import LocalCatalog
from virtflow.testing.guest import GuestImage

if TYPE_CHECKING:
    from tests.functional.nodes import CommandLine, Node
    from virtflow.hypervisor.hypervisor import Hypervisor

_HALT = b"\xfa\xf4\xeb\xfd".ljust(510, b"\0") + b"\x55\xaa"
"""cli; hlt; a jump back to the hlt; and the signature that makes it a boot sector."""


@pytest.fixture(scope="session")
def halting_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "halt.raw"
    path.write_bytes(_HALT.ljust(1 << 20, b"\0"))
    return path


@pytest.fixture(scope="session")
def catalog(tmp_path_factory: pytest.TempPathFactory, halting_image: Path, guest_image: GuestImage) -> Path:
    path = tmp_path_factory.mktemp("catalog")
    LocalCatalog(path).add(halting_image, "halt", "raw")
    LocalCatalog(path).add(guest_image.disk_qcow2, "tiny", "qcow2")
    return path


@pytest.fixture
def node(embed_root: Path, _session_hypervisor: Hypervisor, catalog: Path) -> Iterator[Node]:
    from tests.functional.nodes import node_up

    with node_up(embed_root, catalog) as up:
        yield up


@pytest.fixture
def command_line(embed_root: Path, _session_hypervisor: Hypervisor, catalog: Path) -> Iterator[CommandLine]:
    from tests.functional.nodes import command_line_up

    with command_line_up(embed_root, catalog) as up:
        yield up


@pytest.fixture(scope="session")
def glance_server() -> Iterator[Glance]:
    try:
        with glance(default_cache()) as running:
            yield running
    except GlanceMissing as missing:
        pytest.skip(str(missing))
