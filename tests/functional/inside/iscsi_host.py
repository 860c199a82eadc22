"""A host that serves volumes by iSCSI and reaches them itself, with daemons of its own: a plug-in for pytest.

Runs in the appliance (``tests/functional/test_appliance.py``).
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from virtflow.volumes.connectors.os_brick import OsBrickConnector
from virtflow.volumes.connectors.qemu import QemuConnector

GROUP, POOL = "lab-served", "pool"
# No copies of metadata that nobody reads, and no daemons.
QUICK = 'backup{backup=0 archive=0} activation{monitoring=0 udev_sync=0 udev_rules=0} global{thin_check_executable=""}'
PORT, CONTROL = 3260, 1
SECONDS = 60


@pytest.fixture(scope="session")
def iscsi_host() -> Iterator[None]:
    """With a volume group that has a thin pool, on the last disk."""
    disk = str(max(Path("/dev").glob("vd?")))
    pool = ["lvcreate", "-q", "-L", "512m", "--thinpool", POOL, GROUP, "--config", QUICK]
    for words in (["modprobe", "iscsi_tcp"], ["vgcreate", "-q", GROUP, disk], pool):
        subprocess.run(words, check=True, timeout=SECONDS)
    Path("/etc/iscsi/initiatorname.iscsi").write_text("InitiatorName=iqn.2026-01.virtflow.test:host\n")
    tgtd = subprocess.Popen(["tgtd", "-f", "-C", str(CONTROL), "--iscsi", f"portal=127.0.0.1:{PORT}"])
    iscsid = subprocess.Popen(["iscsid", "-f"])
    deadline = time.monotonic() + SECONDS
    while not Path(f"/run/tgtd/socket.{CONTROL}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield
    for daemon in (iscsid, tgtd):
        daemon.kill()
        daemon.wait(SECONDS)


@pytest.fixture(scope="session")
def connector(iscsi_host: None) -> OsBrickConnector:
    return OsBrickConnector(Path("/run/connections"), QemuConnector())


def sessions() -> bytes:
    listing = subprocess.run(["iscsiadm", "-m", "session"], check=False, capture_output=True, timeout=SECONDS)
    return listing.stdout
