"""``python -m tests.lab up|down``: two hosts with workers to play with, which stay until they are taken down."""

from __future__ import annotations

import shlex
import sys
import uuid
from pathlib import Path

from tests.lab import tgt
from tests.lab.hosts import GUEST_BRIDGE, Lab, missing
from tests.lab.workers import IMAGE, NETWORK, furnish
from virtflow.config import load
from virtflow.errors import HostLacks
from virtflow.testing.guest import build_guest

ROOT = Path("/var/lib/virtflow-lab")
DESCRIPTION = ROOT / "lab.json"
HOSTS = 2


def up() -> int:
    if reason := missing():
        print(f"cannot bring the lab up: {reason}", file=sys.stderr)
        return 1
    if DESCRIPTION.exists():
        lab = Lab.described(ROOT, DESCRIPTION.read_text())
        print("The lab is up already.")
    else:
        lab = Lab(ROOT, uuid.uuid4().hex[:6], HOSTS)
        ROOT.mkdir(mode=0o755, exist_ok=True)
        DESCRIPTION.write_text(lab.describe())
        try:
            lab.start(survive=True)
            workers = furnish(lab, special=_volumes(lab))
            for host in lab.hosts:
                workers.start(host, survive=True)
        except BaseException:
            lab.down()
            raise
    _tell(lab)
    return 0


def down() -> int:
    if not DESCRIPTION.exists():
        print("There is no lab.")
        return 0
    lab = Lab.described(ROOT, DESCRIPTION.read_text())
    control = load([ROOT / f"{lab.hosts[0].name}.conf"], env={}).volumes.tgt_control
    lab.down()
    tgt.forget(control)
    print("The lab is gone.")
    return 0


def _volumes(lab: Lab) -> dict[str, dict[str, str]]:
    """The first host has a backend, which serves the others by iSCSI where tgt is installed; the others have none."""
    first, *others = lab.hosts
    special = {host.name: {"volumes.backends": ""} for host in others}
    if tgt.missing() is None:
        daemon = tgt.Tgt(ROOT, first.address, within=first.argv)
        daemon.start(survive=True)
        special[first.name] = daemon.settings
    return special


def _tell(lab: Lab) -> None:
    for host in lab.hosts:
        print(f"\n{host.name}  {host.address}, guests on bridge {GUEST_BRIDGE}")
        print(f"  virsh -c {shlex.quote(host.local_uri)} list --all")
        print(f"  {shlex.join(host.argv(['virsh', '-c', host.uri, 'list', '--all']))}")
        print(f"  {shlex.join(host.argv(['bash']))}    # a shell in its network")
    third = ["virtflow", "--config-file", str(ROOT / "client.conf")]
    size = ["--vcpus", "1", "--memory", "32", "--disk", "1", "--network", NETWORK]
    print("\nEach has a worker. From a third place:")
    for words in (
        ["host", "list"],
        ["spawn", "vm1", "--image", IMAGE, *size],
        ["operation", "show", "--last"],
        ["host", "show", lab.hosts[0].name],
        ["delete", "vm1"],
    ):
        print(f"  {shlex.join([*third, *words])}")
    print(f"Their logs: {ROOT}/{lab.hosts[0].name}.worker.log ...")
    try:
        guest = build_guest(say=print)
    except HostLacks as lacks:
        print(f"\n{lacks}")
    else:
        print(f"\nA test guest that boots in a few seconds: {guest.disk_qcow2}")
    print("\nTake it down: make lab-down")


if __name__ == "__main__":
    commands = {"up": up, "down": down}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        sys.exit("usage: python -m tests.lab up|down")
    sys.exit(commands[sys.argv[1]]())
