"""Fixtures that bring up real surroundings, once per session and only when a test asks for them.

``postgres_server``    a private PostgreSQL (``create_database()`` makes more)
``postgres_url``       URL of a database of the session
``fresh_postgres_url`` URL of an empty database for this test alone
``guest_image``        the built test guest
``lab``, ``lab_hosts`` two libvirt hosts and the switch between them; a test takes its own guests away
``movers``             two hosts with workers between which guests move, of a module; its ``SETTINGS`` are theirs
``short_tmp_path``     like tmp_path, but short enough for UNIX sockets

A test whose surroundings cannot be brought up is skipped with the name of what is missing.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab import hosts as lab_of_hosts
from tests.lab import postgres as lab_postgres
from tests.lab.hosts import Lab, LabHost
from tests.lab.postgres import Postgres
from virtflow.errors import HostLacks
from virtflow.testing.guest import GuestImage, build_guest

if TYPE_CHECKING:
    from tests.lab.migrating import Movers


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    if reason := lab_postgres.missing():
        pytest.skip(reason)
    with lab_postgres.postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres_server: Postgres) -> str:
    return postgres_server.create_database("session")


@pytest.fixture
def fresh_postgres_url(postgres_server: Postgres) -> Iterator[str]:
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture(scope="session")
def guest_image() -> GuestImage:
    try:
        return build_guest()
    except HostLacks as lacks:
        pytest.skip(str(lacks))


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    if reason := lab_of_hosts.missing():
        pytest.skip(reason)
    root = Path(tempfile.mkdtemp(prefix="vflab-"))
    with Lab.up(root, hosts=2) as running:
        yield running


@pytest.fixture(scope="session")
def lab_hosts(lab: Lab) -> tuple[LabHost, ...]:
    return lab.hosts


@pytest.fixture(scope="module")
def movers(request: pytest.FixtureRequest) -> Iterator[Movers]:
    from tests.lab.migrating import movers_up

    if reason := lab_of_hosts.missing():
        pytest.skip(reason)
    guest: GuestImage = request.getfixturevalue("guest_image")
    settings = getattr(request.module, "SETTINGS", {})
    with movers_up(Path(tempfile.mkdtemp(prefix="vflab-")), **settings) as up:
        up.furnish_guests(guest)
        yield up


@pytest.fixture
def short_tmp_path() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="vf-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)
