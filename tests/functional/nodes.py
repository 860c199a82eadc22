"""A host of one's own to run operations on, in this process or through the command line.

Both have a state directory, a network on a bridge that virtflow manages, and the images of a shared catalog: ``tiny``
boots and tells what it was given, ``halt`` is a boot sector that halts, a real guest that costs next to nothing.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from lxml import etree

from tests.lab.processes import stop, wait_until
from virtflow import DeleteRequest, Runner, SpawnRequest
from virtflow.config import Config, load
from virtflow.engine.run import TaskEvent
from virtflow.engine.services import Services
from virtflow.persistence import schema
from virtflow.persistence.database import Database
from virtflow.persistence.instances import Instance, InstanceRepository
from virtflow.persistence.networks import Network, NetworkRepository, Port
from virtflow.persistence.operations import Operation
from virtflow.replay.checking import check
from virtflow.replay.player_stage import Code
from virtflow.replay.reading import read
from virtflow.testing.residue import Residue

BOOT_SECONDS = 90.0
NETWORK = "net0"
SMALL = {"image": "halt", "vcpus": 1, "memory_mib": 32, "disk_gib": 1}
CAPABILITIES = Path("cache", "qemu", "capabilities")


def small(name: str, **fields: Any) -> SpawnRequest:
    """A request for a guest that halts at once, on the node's network unless told otherwise."""
    return SpawnRequest(**{"name": name, "networks": [{"network": NETWORK}], **SMALL, **fields})


def booting(name: str, **fields: Any) -> SpawnRequest:
    """A request for a guest that boots and talks."""
    return small(name, **{"image": "tiny", "memory_mib": 128, **fields})


@dataclass(frozen=True)
class Node:
    """A host whose operations run in this process."""

    state: Path
    config: Config
    runner: Runner
    network: Network

    @property
    def instances(self) -> InstanceRepository:
        return self.runner.services["instances"]

    @property
    def networks(self) -> NetworkRepository:
        return self.runner.services["networks"]

    @property
    def hypervisor(self) -> Any:
        return self.runner.services["hypervisor"]

    def spawn(self, name: str, **fields: Any) -> Operation:
        return self.runner.run(small(name, **fields))

    def delete(self, name: str) -> Operation:
        return self.runner.run(DeleteRequest(name=name))

    def instance(self, name: str) -> Instance:
        return self.instances.find(name, self.config.project)

    def directory(self, name: str) -> Path:
        return self.config.instances.path / self.instance(name).uuid

    def port(self, name: str) -> Port:
        (port,) = self.networks.ports(instance=self.instance(name).uuid)
        return port

    def state_of(self, name: str) -> str | None:
        return self.hypervisor.state(self.instance(name).uuid)

    def residue(self) -> Residue:
        return Residue.around(self.runner)

    def left_since(self, before: Residue) -> list[str]:
        return before.difference(self.residue())

    def last(self) -> Operation:
        return self.runner.operations.get("--last")

    def rows(self, table: str, **where: Any) -> list[dict[str, Any]]:
        """Rows of a table, as they are stored."""
        return rows(self.runner.database, table, **where)

    def another(self, **settings: str) -> Config:
        """The same host with some settings changed."""
        return load(overrides=_settings(self.state, self.config.libvirt.uri, self.config.images.catalog) | settings)


@contextmanager
def node_up(
    embed_root: Path,
    catalog: Path,
    *,
    on_event: Callable[[TaskEvent], None] | None = None,
    **settings: str,
) -> Iterator[Node]:
    """A node that is gone at the end of the block, with all that it has made. ``settings``: ``group.option``."""
    state = Path(tempfile.mkdtemp(prefix="vfn-"))
    try:
        config = load(overrides=_settings(state, f"qemu:///embed?root={embed_root}", catalog) | settings, env={})
        upgrade(config)
        with Runner(config, on_event=on_event) as runner:
            network = make_network()
            try:
                runner.services["networks"].create(network)
                yield Node(state, config, runner, network)
                assert_replays(runner)
            finally:
                _take_away(runner)
    finally:
        shutil.rmtree(state)


def assert_replays(runner: Runner) -> None:
    """Whatever operations a test has run: replayed with the same code, none diverges from what it recorded."""
    code = Code.installed()
    found = []
    for operation in runner.operations.list(limit=1000):
        recording = read(runner.database, operation.id)
        found += [f"operation {operation.number}, {each}" for each in check(recording, code).divergences]
    if found:
        raise AssertionError("\n".join(["replayed with the same code, operations diverge:", *found]))


def _take_away(runner: Runner) -> None:
    """What a test has left running."""
    hypervisor = runner.services["hypervisor"]
    ours = {row["id"] for row in rows(runner.database, "operations")}
    for domain in hypervisor.domains():
        if domain.operation in ours:
            hypervisor.undefine(domain.uuid)
            hypervisor.destroy(domain.uuid)
    _remove_bridges(runner.database)


def _remove_bridges(database: Database) -> None:
    for network in NetworkRepository(database).list():
        remove_bridge(network.bridge)


def upgrade(config: Config) -> None:
    """Bring the database to today's schema: a server's is only checked by those who use it."""
    database = Database(config.database.url)
    schema.upgrade(database)
    database.close()


def _settings(state: Path, uri: str, catalog: Path) -> dict[str, str]:
    return {
        "state_dir": str(state),
        "libvirt.uri": uri,
        "libvirt.virt_type": "qemu",
        "images.catalog": str(catalog),
        "engine.revert_backoff": "0.05",
    }


def make_network(name: str = NETWORK, **fields: Any) -> Network:
    """A network whose bridge nobody else on this machine has; its addresses may well be used by others."""
    identity = str(uuid.uuid4())
    plain = {
        "id": identity,
        "name": name,
        "cidr": "10.93.7.0/24",
        "gateway": "10.93.7.1",
        "dns": ("10.93.7.2",),
        "bridge": f"vf{identity[:8]}",
        "managed_bridge": True,
    }
    return Network(**(plain | fields))


def links_of(bridge: str) -> list[str]:
    """The bridge and what is plugged into it."""
    return [name for name in [bridge, *_ports_of(bridge)] if Path("/sys/class/net", name).exists()]


def remove_bridge(bridge: str) -> None:
    for name in reversed(links_of(bridge)):
        subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)


def _ports_of(bridge: str) -> list[str]:
    ports = Path("/sys/class/net", bridge, "brif")
    return [port.name for port in ports.iterdir()] if ports.is_dir() else []


def rows(database: Database, table: str, **where: Any) -> list[dict[str, Any]]:
    from virtflow.persistence.models import metadata

    with database.connect() as connection:
        return [dict(row._mapping) for row in connection.execute(sa.select(metadata.tables[table]).filter_by(**where))]


# -- what a guest says ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Console:
    """The serial console of the test guest; what it prints is written down in virtflow.testing.guest_init."""

    path: Path

    @property
    def text(self) -> str:
        return self.path.read_bytes().decode("utf-8", "replace").replace("\r\n", "\n")

    def wait_ready(self) -> Console:
        ready = wait_until(
            lambda: self.path.exists() and re.search("^PARTS .*\n", self.text, re.MULTILINE), BOOT_SECONDS, 0.1
        )
        assert ready, f"the guest has not booted in {BOOT_SECONDS} s; its console: {self.text[-2000:]!r}"
        return self

    def line(self, word: str) -> str:
        """The last line that begins with the word, without it; one that is still being written is none."""
        found: list[str] = re.findall(rf"^{word} (.*)\n", self.text, re.MULTILINE)
        assert found, f"no line {word!r} in {self.text!r}"
        return found[-1]

    def document(self, word: str) -> Any:
        """The JSON document that follows the word."""
        line = self.line(word)
        return json.loads(line[line.index("{") :])

    def block(self, word: str) -> str:
        """What stands between WORD-BEGIN and WORD-END."""
        found = re.search(rf"^{word}-BEGIN\n(.*?)\n{word}-END$", self.text, re.MULTILINE | re.DOTALL)
        assert found, f"no block {word!r} in {self.text!r}"
        return found[1]


def reachable_from(bridge: str, own: str, address: str, seconds: float = 10) -> bool:
    """Whether ``address`` answers IP packets from the bridge, which gets the address ``own`` for the time.

    A UDP datagram to a port where nobody listens: a living host answers with ICMP "port unreachable".
    """
    subprocess.run(["ip", "address", "add", own, "dev", bridge], check=True)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, bridge.encode())
            probe.settimeout(0.5)
            probe.connect((address, 9))
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                try:
                    probe.send(b"anybody there?")
                    probe.recv(1)
                except ConnectionRefusedError:
                    return True
                except OSError:
                    continue
        return False
    finally:
        subprocess.run(["ip", "address", "delete", own, "dev", bridge], check=True)


# -- through the command line -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class CommandLine:
    """A host whose operations run in processes of their own."""

    state: Path
    environment: Mapping[str, str]
    database: Database
    network: Network
    config: Config

    def __call__(self, *words: str, fault: str = "", timeout: float = 60, **environment: str) -> Answer:
        with self.running(*words, fault=fault, **environment) as process:
            out, err = process.communicate(timeout=timeout)
        return Answer(process.returncode, out, err)

    @contextmanager
    def running(self, *words: str, fault: str = "", **environment: str) -> Iterator[subprocess.Popen[str]]:
        """A command that is killed at the end of the block, unless it has ended."""
        with subprocess.Popen(
            self.argv(*words),
            env={**self.environment, **({"VIRTFLOW_FAULT": fault} if fault else {}), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-P", "-m", "virtflow", *words]

    def spawn_words(self, name: str, *more: str) -> list[str]:
        size = ("--vcpus", "1", "--memory", "32", "--disk", "1")
        return ["spawn", name, "--image", "halt", *size, "--network", NETWORK, *more]

    def spawn(self, name: str, *more: str, fault: str = "") -> Answer:
        return self(*self.spawn_words(name, *more), fault=fault)

    def operation(self, reference: str = "--last") -> dict[str, Any]:
        answer = self("operation", "show", reference, "-f", "json")
        assert answer.code == 0, answer.err
        return answer.json  # type: ignore[no-any-return]

    def wait_for_task(self, name: str, state: str = "RUNNING") -> None:
        """Until the journal says that a task of any operation has come into this state."""
        query = {"atom": name, "event": state}
        assert wait_until(lambda: bool(rows(self.database, "journal", **query)), 30), f"{name} is never {state}"

    def rows(self, table: str, **where: Any) -> list[dict[str, Any]]:
        return rows(self.database, table, **where)

    def instance(self, name: str) -> Instance:
        return InstanceRepository(self.database).find(name, self.config.project)

    def residue(self) -> Residue:
        """Libvirt's own files are read in place of libvirt: its directory has room for one process."""
        from virtflow.network.taps import Taps

        root = self.config.libvirt.embed_root
        assert root is not None
        doubles = {"hypervisor": _FilesOfEmbeddedLibvirt(root), "taps": Taps()}
        services = Services(self.config, self.database, doubles)
        seen: Any = SimpleNamespace(config=self.config, services=services, database=self.database)
        return Residue.around(seen)

    def left_since(self, before: Residue) -> list[str]:
        return before.difference(self.residue())


class _FilesOfEmbeddedLibvirt:
    def __init__(self, root: Path) -> None:
        self._root = root

    def domains(self) -> list[Any]:
        found = []
        for path in sorted((self._root / "etc" / "qemu").glob("*.xml")):
            domain = etree.parse(path).getroot()
            owner = domain.find("metadata/{*}instance")
            name = domain.findtext("name")
            state = "running" if list((self._root / "run" / "qemu").glob(f"{name}.pid")) else "shutoff"
            operation = None if owner is None else owner.get("operation")
            found.append(SimpleNamespace(uuid=domain.findtext("uuid"), name=name, state=state, operation=operation))
        return found

    def filters(self) -> list[str]:
        return []


@contextmanager
def command_line_up(known: Path, catalog: Path, **environment: str) -> Iterator[CommandLine]:
    """A host for commands, gone at the end of the block. ``known`` is an embed root that knows the machine's QEMU."""
    state = Path(tempfile.mkdtemp(prefix="vfc-"))
    variables = {
        "VIRTFLOW_STATE_DIR": str(state),
        "VIRTFLOW_LIBVIRT__VIRT_TYPE": "qemu",
        "VIRTFLOW_IMAGES__CATALOG": str(catalog),
        "VIRTFLOW_ENGINE__REVERT_BACKOFF": "0.05",
        **environment,
    }
    config = load(env=variables)
    shutil.copytree(known / CAPABILITIES, state / "libvirt" / CAPABILITIES)
    database = Database(config.database.url)
    schema.upgrade(database)
    network = make_network()
    NetworkRepository(database).create(network)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("VIRTFLOW_")}
    try:
        yield CommandLine(state, inherited | variables, database, network, config)
    finally:
        for pid in processes_below(state):
            stop(pid, polite=signal.SIGKILL)
        _remove_bridges(database)
        database.close()
        shutil.rmtree(state)


def processes_below(state: Path) -> list[int]:
    """Everything that was started for a state directory: commands left in the background, and guests."""
    needle = os.fsencode(state)
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            known = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if int(process.name) != os.getpid() and needle in known:
            found.append(int(process.name))
    return found
