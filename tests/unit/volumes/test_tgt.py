from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.unit.volumes.daemon import answering
from virtflow.errors import HostLacks, VolumeError, VolumeServerFailed
from virtflow.volumes.driver import Reach
from virtflow.volumes.exports import tgt_daemon
from virtflow.volumes.exports.exporter import Backing
from virtflow.volumes.exports.tgt import Portal, TgtExporter
from virtflow.volumes.exports.tgt_daemon import Target, TgtDaemon, read_targets

LISTING = """\
Target 1: iqn.2026-01.test:volume-a
    System information:
        Driver: iscsi
        State: ready
    I_T nexus information:
        I_T nexus: 3
            Initiator: iqn.1993-08.org.debian:01:abc alias: host
            Connection: 0
                IP Address: 192.0.2.7
    LUN information:
        LUN: 0
            Type: controller
            Backing store path: None
            Backing store flags: 
        LUN: 1
            Type: disk
            Size: 67 MB, Block size: 512
            Backing store path: /volumes/with: odd name
            Backing store flags: 
    Account information:
        alice
        bob
    ACL information:
        ALL
Target 12: iqn.2026-01.test:volume-b
    System information:
        Driver: iscsi
        State: ready
    I_T nexus information:
    LUN information:
        LUN: 0
            Type: controller
            Backing store path: None
    Account information:
    ACL information:
"""  # noqa: W291 - as tgtd says it


def test_what_the_daemon_lists_is_read() -> None:
    assert read_targets(LISTING) == [
        Target(1, "iqn.2026-01.test:volume-a", {1: "/volumes/with: odd name"}, ["alice", "bob"], ["ALL"]),
        Target(12, "iqn.2026-01.test:volume-b"),
    ]
    assert read_targets("") == []


@pytest.mark.parametrize(
    "reach",
    [
        Reach(local=False),
        Reach(local=False, user="alice"),
        Reach(local=False, user="alice", password="one,password=two"),
        Reach(local=False, user="alice\0", password="secret"),
    ],
)
def test_what_would_let_everybody_in_or_be_misread_is_refused_before_the_daemon_is_asked(
    reach: Reach, tmp_path: Path
) -> None:
    exporter = TgtExporter(TgtDaemon(0), Portal("192.0.2.1", 3260), "iqn.2026-01.test:", tmp_path / "lock")
    with pytest.raises(VolumeError, match="CHAP"):
        exporter.export("volume-a", Backing(Path("/volumes/volume-a")), reach)


def test_a_path_that_would_be_misread_is_refused_before_the_daemon_is_asked(tmp_path: Path) -> None:
    exporter = TgtExporter(TgtDaemon(0), Portal("192.0.2.1", 3260), "iqn.2026-01.test:", tmp_path / "lock")
    backing = Backing(Path("/volumes/a,bstype=null"))
    with pytest.raises(VolumeError, match="with a comma: /volumes/a,bstype=null"):
        exporter.export("volume-a", backing, Reach(local=False, user="alice", password="secret"))


@pytest.mark.parametrize(
    ("answered", "told"),
    [
        (None, "cannot show targets: no answer in 0 s"),
        (b"", "cannot show targets: it has hung up"),
        (struct.pack("=II", 0, 100) + b"Target 1: half", "cannot show targets: it has hung up"),
        (struct.pack("=II", 17, 8), "cannot show targets: invalid request"),
        (struct.pack("=II", 99, 8), "cannot show targets: error 99"),
    ],
    ids=["silent", "not let in", "died", "refused", "unknown"],
)
def test_what_goes_wrong_at_the_socket_is_said(
    answered: bytes | None, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tgt_daemon, "_SECONDS", 0.2)
    with answering(tmp_path, monkeypatch, 7, answered), pytest.raises(VolumeServerFailed, match=told):
        TgtDaemon(7).targets()
    with pytest.raises(HostLacks, match="control port 7"):
        TgtDaemon(7).targets()


def test_a_daemon_that_does_not_run_serves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(self: TgtDaemon) -> dict[str, Target]:
        raise HostLacks(action="serve volumes", missing="tgtd", remedy="start it")

    monkeypatch.setattr(TgtDaemon, "targets", absent)
    exporter = TgtExporter(TgtDaemon(0), Portal("192.0.2.1", 3260), "iqn.2026-01.test:", tmp_path / "lock")
    backing = Backing(Path("/volumes/volume-a"))
    exporter.unexport("volume-a", backing)
    exporter.grown("volume-a", backing)
    assert exporter.exported(Path("/volumes")) == []
    with pytest.raises(HostLacks):
        exporter.export("volume-a", backing, Reach(local=False, user="alice", password="secret"))
