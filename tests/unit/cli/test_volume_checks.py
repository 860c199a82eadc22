"""What ``virtflow doctor`` says of volumes: programs stand for those of a host that has them."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.volumes.daemon import answering
from virtflow.cli.finding import INFO, MISSING, OK
from virtflow.cli.volume_checks import lvm, volume_server
from virtflow.config import Config, load

Program = Callable[[str, str], None]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Install a program, which is a line of a shell; before that there is none but a few of the system's."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))

    def install(name: str, line: str = "exit 0") -> None:
        (directory / name).write_text(f"#!/bin/sh\n{line}\n")
        (directory / name).chmod(0o755)

    for name in ("prlimit", "setpriv"):
        install(name, 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"')
    return install


@pytest.fixture
def portal() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def config(**options: str) -> Config:
    return load(overrides={f"volumes.{name}": value for name, value in options.items()}, env={})


def test_a_host_that_serves_no_volumes_needs_no_server() -> None:
    assert volume_server(config()).status == OK
    assert lvm(config()).detail == "no volume backend uses it"


def test_tgtd_has_to_be_installed_to_run_and_to_listen_where_hosts_look_for_it(
    program: Program, portal: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = config(export="tgt", iscsi_port=str(portal), tgt_control="7")
    assert volume_server(serving).fix == "apt-get install tgt"
    program("tgtadm")
    down = volume_server(serving)
    assert (down.status, down.detail) == (MISSING, "a running tgtd with control port 7 is missing")
    with answering(tmp_path, monkeypatch, 7):
        here = volume_server(serving)
    assert (here.status, here.fix) == (INFO, "set [volumes] export_address")
    with answering(tmp_path, monkeypatch, 7, b""):
        shut_out = volume_server(serving)
    assert (shut_out.status, shut_out.fix) == (MISSING, "run virtflow as root")


def test_tgtd_that_listens_elsewhere_is_told_where(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    program("tgtadm")
    with answering(tmp_path, monkeypatch, 0):
        found = volume_server(config(export="tgt", iscsi_port=str(port)))
    assert found.status == MISSING
    assert found.fix.endswith(f"--op new --mode portal --param portal=127.0.0.1:{port}")


def test_nbd_needs_qemu_nbd(program: Program) -> None:
    assert volume_server(config(export="nbd")).fix == "apt-get install qemu-utils"
    program("qemu-nbd")
    assert volume_server(config(export="nbd")).status == OK


def test_lvm_needs_its_programs_its_group_and_its_pool(program: Program) -> None:
    thin = config(backends="local:file,fast:lvm:vg0/pool")
    for name, package in {
        "lvcreate": "lvm2",
        "blkdiscard": "util-linux",
        "thin_check": "thin-provisioning-tools",
    }.items():
        assert lvm(thin).fix == f"apt-get install {package}"
        program(name)
    program("vgs", "echo 'Volume group \"vg0\" not found' >&2; exit 5")
    missing = lvm(thin)
    assert (missing.status, missing.fix) == (MISSING, "vgcreate vg0 DEVICE")
    assert "not found" in missing.detail
    report = {"report": [{"vg": [{"vg_size": "8589934592", "vg_free": "4294967296"}]}]}
    program("vgs", f"echo '{json.dumps(report)}'")
    program("lvs", "exit 5")
    assert "thin pool vg0/pool" in lvm(thin).detail
    assert lvm(config(backends="fast:lvm:vg0")).detail == "volume group vg0 (4.0 GiB free)"
    report = {"report": [{"lv": [{"lv_size": "4294967296", "data_percent": "50.00"}]}]}
    program("lvs", f"echo '{json.dumps(report)}'")
    assert (lvm(thin).status, lvm(thin).detail) == (OK, "thin pool vg0/pool (2.0 GiB free)")
