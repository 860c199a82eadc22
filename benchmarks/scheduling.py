"""What a scheduling decision costs: CPU of the choice itself, and of reading a thousand hosts from the database."""

from __future__ import annotations

import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from benchmarks.databases import databases
from benchmarks.simulated import SPEC, configuration, registry
from benchmarks.table import Target, show, show_targets
from virtflow.persistence import schema
from virtflow.persistence.database import Database
from virtflow.persistence.hosts import HostRepository
from virtflow.scheduler import Amounts, HostState, RequestSpec
from virtflow.scheduler.plugins import load_scheduler
from virtflow.worker.connecting import connect

_HOSTS = 1000
_LIMIT = 20.0
_WHOLE = "the whole step, with its reads and writes"
_OWNER = '["somewhere", 1, 1, "boot"]'
_FILTERS = ("status", "availability-zone", "retry", "server-group", "capacity", "capabilities", "image-properties")
_CAPABILITIES = {
    "arch": "x86_64",
    "virt_types": ["kvm", "qemu"],
    "machines": ["pc", "q35", *(f"pc-q35-{major}.{minor}" for major in range(4, 9) for minor in range(3))],
    "firmware": ["bios", "uefi"],
    "libvirt_version": "9.0.0",
}
_WISHES = RequestSpec(
    Amounts(4, 8192, 40),
    zone="zone-1",
    image_properties={"hw_architecture": "x86_64", "hw_machine_type": "q35", "hw_firmware_type": "uefi"},
    capabilities={"libvirt_version": ">=8.0"},
    group="spread",
    group_policy="anti-affinity",
    group_hosts={f"host-{number:04}": "web" for number in range(20)},
    tried={"host-0500": "DefineDomain: no"},
)
_PLAIN = RequestSpec(Amounts(4, 8192, 40))


def scheduling(rounds: int) -> list[Target]:
    """CPU time of decisions over a thousand hosts, a third of them in each of three zones."""
    scheduler = load_scheduler(_FILTERS, ("capacity", "allocated-capacity"), {}, subset=5)
    fleet = [_state(number) for number in range(_HOSTS)]
    cases = {
        "nothing asked but room": lambda: scheduler.select(_PLAIN, fleet, seed="a"),
        "zone, group, image, flavor, retry": lambda: scheduler.select(_WISHES, fleet, seed="a"),
        "its document": scheduler.select(_PLAIN, fleet, seed="a").to_dict,
    }
    found = {name: _cpu_ms(body, rounds) for name, body in cases.items()}
    with tempfile.TemporaryDirectory(prefix="vfb-") as directory:
        found["reading the hosts (SQLite)"] = _reading(Path(directory), rounds)
    with databases() as available:
        for kind in available.kinds:
            found[f"{_WHOLE}, {kind}"] = _whole(available.fresh(kind), rounds)
    show(f"A decision over {_HOSTS} hosts", ("", "ms of CPU"), [(name, f"{ms:.2f}") for name, ms in found.items()])
    targets = [
        Target(f"{name}, ms of CPU", found[name], _LIMIT, most=True)
        for name in found
        if name in list(cases)[:2] or name.startswith(_WHOLE)
    ]
    show_targets(targets)
    return targets


def _state(number: int) -> HostState:
    return HostState(
        f"host-{number:04}",
        Amounts(1024, 786432, 16000),
        Amounts(number * 7 % 900, number * 337 % 700000, number * 13 % 15000),
        zone=f"zone-{number % 3}",
        capabilities=_CAPABILITIES,
    )


def _whole(url: str, rounds: int) -> float:
    """As the task does it: read, choose, keep the decision, claim; so one host has changed when the next one comes."""
    database = Database(url)
    schema.upgrade(database)
    database.close()
    with tempfile.TemporaryDirectory(prefix="vfb-") as directory:
        runner, _board = connect(configuration(url, directory, "host-0001"), registry=registry())
        with runner:
            hosts, choice, placement = (runner.services[name] for name in ("hosts", "host_choice", "placement"))
            for number in range(_HOSTS):
                hosts.register(f"host-{number:04}", 64, 524288, 4000, capabilities=_CAPABILITIES, worker=_OWNER)

            def decide() -> None:
                operation = str(uuid.uuid4())
                chosen = choice.choose(SPEC, operation, operation, {"attempt": 1, "tried": {}, "alternates": []}).chosen
                placement.claim(chosen, operation, operation, vcpus=1, memory_mib=256, disk_gib=1)

            decide()
            return _cpu_ms(decide, rounds)


def _reading(directory: Path, rounds: int) -> float:
    database = Database(f"sqlite:///{directory / 'v.db'}")
    try:
        schema.upgrade(database)
        hosts = HostRepository(database)
        for number in range(_HOSTS):
            hosts.register(f"host-{number:04}", 64, 524288, 4000, capabilities=_CAPABILITIES, worker="w")
        hosts.list()
        return _cpu_ms(hosts.list, rounds)
    finally:
        database.close()


def _cpu_ms(body: Callable[[], object], rounds: int) -> float:
    """The median over rounds of ten."""
    spent = []
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(10):
            body()
        spent.append((time.process_time() - start) * 100)
    return statistics.median(spent)
