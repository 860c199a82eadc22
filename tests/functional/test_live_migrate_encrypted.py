"""Guests that move over what nobody can listen to: TLS, as they do unless something else is configured, or ssh.

The lab's libvirts have no other way to each other here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab import sshd
from tests.lab.certificates import Authority
from tests.lab.hosts import PKI, SSH, missing
from tests.lab.migrating import Movers, Watched, Wire, movers_up

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(300)]

ONE, TWO = "labhost1", "labhost2"
ADDRESSES = {ONE: "10.98.0.1", TWO: "10.98.0.2"}
TLS = {"live_migration.transport": "tls", "live_migration.native_tls": "true"}


@contextmanager
def place(directory: Path) -> Iterator[None]:
    """Where each host will see something of its own: there has to be a directory."""
    made = not directory.exists()
    directory.mkdir(exist_ok=True, mode=0o700)
    try:
        yield
    finally:
        if made:
            directory.rmdir()


@contextmanager
def encrypted(authorities: dict[str, Authority]) -> Iterator[Movers]:
    """Hosts with certificates of these authorities."""
    if reason := missing():
        pytest.skip(reason)
    with place(PKI), tempfile.TemporaryDirectory(prefix="vfpki-") as name:
        for host, address in ADDRESSES.items():
            authorities[host].furnish(Path(name, host), address)
        root = Path(tempfile.mkdtemp(prefix="vflab-"))
        with movers_up(root, lambda host: ((Path(name, host), PKI),), **TLS) as up:
            yield up


def test_a_guest_moves_over_tls_alone() -> None:
    one = Authority()
    with encrypted({ONE: one, TWO: one}) as movers:
        movers.spawn("web1", ONE, swap_mib=4)
        movers.mark(ONE, "web1", mib=8)
        with Wire(movers) as wire, Watched(movers, "web1"):
            movers.ended(movers.migrate("web1"))
        assert movers.runs_on("web1") == [TWO]
        assert movers.is_marked(TWO, "web1")
        assert movers.settled() == []
        assert wire.in_the_clear == 0


def test_who_has_no_certificate_of_ours_gets_no_guest_and_the_guest_goes_on() -> None:
    with encrypted({ONE: Authority(), TWO: Authority()}) as movers:
        movers.spawn("web1", ONE)
        with Watched(movers, "web1"):
            refused = movers.ended(movers.migrate("web1"), "REVERTED")
        assert "certificate" in str(refused.error)
        assert movers.runs_on("web1") == [ONE]
        assert movers.settled() == []


def test_a_guest_moves_over_ssh_between_the_libvirts() -> None:
    if reason := missing() or sshd.missing():
        pytest.skip(reason)
    settings = {"live_migration.transport": "ssh", "live_migration.native_tls": "false"}
    with place(SSH), tempfile.TemporaryDirectory(prefix="vfssh-") as name:
        directories = {host: Path(name, host) for host in ADDRESSES}
        sshd.exchange_keys({ADDRESSES[host]: directory for host, directory in directories.items()})
        root = Path(tempfile.mkdtemp(prefix="vflab-"))
        with movers_up(root, lambda host: ((directories[host], SSH),), **settings) as movers:
            for host, directory in directories.items():
                sshd.serve(movers.hosts[host], directory)
            movers.spawn("web1", ONE)
            movers.mark(ONE, "web1")
            with Watched(movers, "web1"):
                movers.ended(movers.migrate("web1"))
            assert movers.runs_on("web1") == [TWO]
            assert movers.is_marked(TWO, "web1")
            assert movers.settled() == []
