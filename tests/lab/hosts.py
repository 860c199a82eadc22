"""Real libvirt hosts on one machine, each in its own network, mount and UTS namespace.

::

    with Lab.up(root, hosts=2) as lab:
        one, two = lab.hosts
        libvirt.open(one.local_uri)                       # from anywhere on this machine
        lab.call(lambda: libvirt.open(one.uri))           # qemu+tcp, as hosts see each other
        one.argv(["virtflow", "spawn", ...])              # the command that runs on that host

The hosts see each other as 10.98.0.1, 10.98.0.2 ... on eth0. Bridge ``brlab`` of each host is for guests: all of them
are one Ethernet segment, on which host N has 10.99.0.N/24. Nothing of it is seen from outside the namespaces.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.lab.namespaces import Namespace, ip
from tests.lab.processes import alive, start, stop, wait_until
from virtflow.testing import known_qemus

T = TypeVar("T")

GUEST_BRIDGE = "brlab"
PKI = Path("/etc/pki")
"""Where libvirt and QEMU look for certificates."""
SSH = Path("/root/.ssh")
"""Where root's keys are."""
_PRIVATE = {"run": "/run", "var": "/var/lib/libvirt", "cache": "/var/cache/libvirt", "log": "/var/log/libvirt"}
_START_SECONDS = 60

_LIBVIRTD_CONF = """\
listen_tls = {tls}
listen_tcp = {tcp}
auth_tcp = "none"
auth_unix_rw = "none"
unix_sock_group = "root"
listen_addr = "0.0.0.0"
host_uuid = "{host_uuid}"
"""
_QEMU_CONF = """\
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
remember_owner = 0
stdio_handler = "file"
"""


def missing() -> str | None:
    """What this machine lacks for lab hosts, as a reason to skip; None when it has everything."""
    if os.geteuid() != 0:
        return "needs root"
    for program, package in {
        "libvirtd": "libvirt-daemon-system",
        "ip": "iproute2",
        "qemu-system-x86_64": "qemu-system-x86",
    }.items():
        if shutil.which(program) is None:
            return f"needs {program} (package {package})"
    return None


@dataclass(frozen=True)
class LabHost:
    """One host. ``address`` is what the other hosts reach it at."""

    number: int
    name: str
    address: str
    root: Path
    network: Namespace
    binds: tuple[tuple[Path, Path], ...] = ()
    """What this host sees of the machine's files, and where: by it, one path is something else on each host.

    A host with certificates (in PKI) speaks TLS with the others and nothing else, one with keys (in SSH) ssh."""

    @property
    def uri(self) -> str:
        """For clients inside the lab's networks."""
        return f"qemu+tcp://{self.address}/system"

    @property
    def local_uri(self) -> str:
        """For clients on this machine, whichever network they are in."""
        return f"qemu+unix:///system?socket={self.root}/run/libvirt/libvirt-sock"

    def argv(self, argv: Sequence[str]) -> list[str]:
        """The command that runs ``argv`` in this host's network."""
        if not self.binds:
            return self.network.argv(argv)
        mounts = "; ".join(f"mount --bind '{source}' '{target}'" for source, target in self.binds)
        script = ["bash", "-ec", f'{mounts}; exec "$@"', "--", *argv]
        return self.network.argv(["unshare", "--mount", "--propagation", "private", "--", *script])

    def call(self, function: Callable[[], T]) -> T:
        """Call a function in this host's network (taps and bridges that it makes are this host's)."""
        return self.network.call(function)

    def libvirtd_pid(self) -> int:
        return int((self.root / "libvirtd.pid").read_text())

    def start(self, *, survive: bool = False) -> None:
        """Start libvirtd; what ran before keeps running and is found again."""
        script = "; ".join(
            [
                "set -e",
                f"echo {self.name} >/proc/sys/kernel/hostname",
                *(f"mount --bind '{self.root}/{private}' {public}" for private, public in _PRIVATE.items()),
                f"mount --bind '{self.root}/etc' /etc/libvirt",
                "exec libvirtd --listen",
            ]
        )
        isolated = ["unshare", "--mount", "--uts", "--propagation", "private", "--", "bash", "-c", script]
        pid = start(self.argv(isolated), self.root / "libvirtd.log", survive=survive)
        (self.root / "libvirtd.pid").write_text(str(pid))
        socket = self.root / "run/libvirt/libvirt-sock"
        if not wait_until(lambda: not alive(pid) or _answers(socket), _START_SECONDS):
            raise RuntimeError(f"libvirtd of {self.name} does not answer, see {self.root}/libvirtd.log")
        if not alive(pid):
            raise RuntimeError(f"libvirtd of {self.name} ended: {(self.root / 'libvirtd.log').read_text()[-2000:]}")

    def stop_libvirtd(self) -> None:
        """Stop the daemon alone; guests keep running."""
        stop(self.libvirtd_pid())

    def prepare(self) -> None:
        """Private directories and configuration."""
        for private in (*_PRIVATE, "etc"):
            (self.root / private).mkdir(parents=True)
        (self.root / "run/libvirt").mkdir()
        (self.root / "run/lock").mkdir()
        shutil.copytree("/etc/libvirt", self.root / "etc", dirs_exist_ok=True, symlinks=True)
        # Networks and guests of the machine itself are not this host's business.
        shutil.rmtree(self.root / "etc/qemu", ignore_errors=True)
        host_uuid = uuid.uuid4()
        ways = {target for _source, target in self.binds}
        (self.root / "etc/libvirtd.conf").write_text(
            _LIBVIRTD_CONF.format(host_uuid=host_uuid, tls=int(PKI in ways), tcp=int(not ways & {PKI, SSH}))
        )
        (self.root / "etc/qemu.conf").write_text(_QEMU_CONF)


Binds = Callable[[str], tuple[tuple[Path, Path], ...]]


def nothing(_host: str) -> tuple[tuple[Path, Path], ...]:
    return ()


def _answers(socket: Path) -> bool:
    if not socket.exists():
        return False
    command = ["virsh", "-q", "-c", f"qemu+unix:///system?socket={socket}", "version"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class Lab:
    """The hosts of one run and the switch between them."""

    def __init__(self, root: Path, run: str, hosts: int, binds: Binds = nothing) -> None:
        self.root = root
        self.run = run
        self.switch = Namespace(f"vf-{run}-sw")
        self.hosts = tuple(
            LabHost(
                number=number,
                name=f"labhost{number}",
                address=f"10.98.0.{number}",
                root=root / f"h{number}",
                network=Namespace(f"vf-{run}-{number}"),
                binds=binds(f"labhost{number}"),
            )
            for number in range(1, hosts + 1)
        )

    @classmethod
    @contextmanager
    def up(cls, root: Path, *, hosts: int = 2, binds: Binds = nothing) -> Iterator[Lab]:
        """A lab that is gone at the end of the block, guests included. ``root``: a short path (UNIX sockets).
        ``binds`` says of a host, by its name, what ``LabHost.binds`` is."""
        lab = cls(root, uuid.uuid4().hex[:6], hosts, binds)
        try:
            lab.start()
            yield lab
        finally:
            lab.down()

    def start(self, *, survive: bool = False) -> None:
        self._wire()
        for host in self.hosts:
            host.prepare()
        first, *others = self.hosts
        known = known_qemus.tell(first.root / "cache")
        first.start(survive=survive)
        if not known:
            known_qemus.learn(first.root / "cache")
        for host in others:
            known_qemus.tell(host.root / "cache")
            host.start(survive=survive)

    def _wire(self) -> None:
        self.switch.create()
        for bridge, address in {"hosts": "10.98.0.254/24", "guests": "10.99.0.254/24"}.items():
            self.switch.ip("link", "add", bridge, "type", "bridge")
            self.switch.ip("link", "set", bridge, "up")
            self.switch.ip("addr", "add", address, "dev", bridge)
        for host in self.hosts:
            net = host.network
            net.create()
            net.ip("link", "add", GUEST_BRIDGE, "type", "bridge")
            for port, cable, bridge in (("eth0", "h", "hosts"), ("eth1", "g", "guests")):
                end = f"{cable}{host.number}"
                self.switch.ip("link", "add", end, "type", "veth", "peer", "name", port, "netns", net.name)
                self.switch.ip("link", "set", end, "master", bridge, "up")
                net.ip("link", "set", port, "up")
            net.ip("link", "set", "eth1", "master", GUEST_BRIDGE)
            net.ip("link", "set", GUEST_BRIDGE, "up")
            net.ip("addr", "add", f"{host.address}/24", "dev", "eth0")
            net.ip("addr", "add", f"10.99.0.{host.number}/24", "dev", GUEST_BRIDGE)

    def call(self, function: Callable[[], T]) -> T:
        """Call a function in a network from which every host is reached."""
        return self.switch.call(function)

    def down(self) -> None:
        """Stop and remove everything; what is gone already is fine."""
        for host in self.hosts:
            host.network.remove()
        self.switch.remove()
        shutil.rmtree(self.root, ignore_errors=True)

    def describe(self) -> str:
        """What ``make lab`` needs to find this lab again."""
        return json.dumps({"run": self.run, "hosts": len(self.hosts)})

    @classmethod
    def described(cls, root: Path, description: str) -> Lab:
        fields = json.loads(description)
        return cls(root, fields["run"], fields["hosts"])


def namespaces() -> set[str]:
    """Names of the network namespaces of this machine."""
    return {line.split()[0] for line in ip("netns", "list").splitlines() if line}
