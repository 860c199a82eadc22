"""Where a guest is judged to be, how a migration is steered, and with which XML it arrives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from lxml import etree
from lxml.builder import E  # type: ignore[import-not-found]  # lxml-stubs leaves it out

from virtflow.activity import Activity
from virtflow.errors import HostLacks, HypervisorError, MigrationFailed, OperationCancelled, TaskTimeout
from virtflow.hypervisor import migration as module
from virtflow.hypervisor.capabilities import HostCapabilities
from virtflow.hypervisor.domain_state import DomainState
from virtflow.hypervisor.domain_xml import disk_element
from virtflow.hypervisor.migration import Migration, Whereabouts, arrived, dismiss_incoming, settle_arrived
from virtflow.hypervisor.migration_plan import MigrationPlan, MigrationStats
from virtflow.hypervisor.migration_xml import Relocation, cpu_of, machine_of, moving_disks, relocate
from virtflow.hypervisor.migrations import Migrations, MigrationSettings
from virtflow.hypervisor.safe_xml import parse
from virtflow.hypervisor.volume_disks import volume_disk

libvirt = pytest.importorskip("libvirt", reason="needs libvirt-python")

RUNNING = (libvirt.VIR_DOMAIN_RUNNING, 0)
HALTED = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER)
EXPECTED = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION)
POST_COPY = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY)
POST_COPY_FAILED = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED)
GONE = (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED)
DIED = (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED)
OUT = {"type": libvirt.VIR_DOMAIN_JOB_UNBOUNDED, "operation": libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT}
PLAN = MigrationPlan("qemu+tls://b/system", "<domain/>", "<domain/>", disks=("vda",))


class Libvirt:
    """A domain of one host, or none; and the migration from it, which lasts for some looks and ends in some way."""

    def __init__(self, state: tuple[int, int] | None, jobs: int = 0, **job: Any) -> None:
        self.current = state
        self.jobs = jobs
        self.job = {**OUT, **job}
        self.asked: list[str] = []
        self.after: Callable[[], None] = lambda: None

    def with_domain(self, action: str, uuid: str, function: Any) -> Any:
        return None if self.current is None else function(self)

    def name(self) -> str:
        return "web1"

    def state(self, uuid: str | None = None) -> Any:
        if uuid is None:
            return self.current
        if self.current is None:
            return None
        return DomainState.SHUTOFF if self.current[0] == libvirt.VIR_DOMAIN_SHUTOFF else DomainState.RUNNING

    def jobStats(self, _flags: int = 0) -> dict[str, Any]:  # noqa: N802
        if self.jobs <= 0:
            return {"type": libvirt.VIR_DOMAIN_JOB_NONE}
        self.jobs -= 1
        if self.jobs == 0:
            self.after()
        return self.job

    def __getattr__(self, name: str) -> Callable[..., None]:
        def asked(*_arguments: object) -> None:
            self.asked.append(name)
            if name == "abortJob":
                self.jobs = 0

        return asked


class Asked(Activity):
    def cancel_requested(self) -> bool:
        return True


def migration(source: Libvirt, destination: Libvirt) -> Migration:
    return Migration(source, destination, "uuid")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "destination", "where"),
    [
        (RUNNING, None, Whereabouts.SOURCE),
        (RUNNING, EXPECTED, Whereabouts.SOURCE),
        (HALTED, EXPECTED, Whereabouts.SOURCE),
        (HALTED, RUNNING, Whereabouts.DESTINATION),
        (POST_COPY, RUNNING, Whereabouts.DESTINATION),
        (POST_COPY_FAILED, DIED, Whereabouts.DESTINATION),
        (GONE, RUNNING, Whereabouts.DESTINATION),
        (None, RUNNING, Whereabouts.DESTINATION),
        (DIED, HALTED, Whereabouts.DESTINATION),
        (DIED, DIED, Whereabouts.DESTINATION),
        (DIED, EXPECTED, Whereabouts.NOWHERE),
        (DIED, None, Whereabouts.NOWHERE),
    ],
)
def test_a_guest_is_where_it_runs(source: Any, destination: Any, where: Whereabouts) -> None:
    assert migration(Libvirt(source), Libvirt(destination)).where() is where


def test_a_destination_that_does_not_answer_is_not_asked_about_a_guest_that_runs_on_the_source() -> None:
    class Away(Libvirt):
        def with_domain(self, *_arguments: Any) -> Any:
            raise AssertionError

    assert migration(Libvirt(RUNNING), Away(None)).where() is Whereabouts.SOURCE
    assert migration(Libvirt(GONE), Away(None)).where() is Whereabouts.DESTINATION


LACKING = (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY)


@pytest.mark.parametrize(
    ("state", "came", "asked"),
    [
        (None, False, []),
        (RUNNING, True, ["start"]),
        (DIED, True, ["start"]),
        (LACKING, True, ["destroy", "start"]),
        (POST_COPY_FAILED, True, ["destroy", "start"]),
    ],
)
def test_a_guest_whose_source_is_dead_runs_where_it_has_come(state: Any, came: bool, asked: list[str]) -> None:
    there = Libvirt(state)
    assert settle_arrived(there, "uuid") is came  # type: ignore[arg-type]
    assert there.asked == asked


def test_what_waits_for_a_guest_whose_source_is_dead_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SURE_SECONDS", 0.0)

    class Waiting(Libvirt):
        def destroy(self, _uuid: str) -> None:
            self.current = None

    assert settle_arrived(Waiting(EXPECTED), "uuid") is False  # type: ignore[arg-type]


def test_a_migration_that_is_under_way_is_gone_on_with_and_not_begun_again() -> None:
    source, destination = Libvirt(RUNNING, jobs=3, memory_total=10, memory_remaining=4), Libvirt(EXPECTED)

    def arrive() -> None:
        source.current, destination.current = GONE, RUNNING

    source.after = arrive
    report = migration(source, destination).carry(PLAN)
    assert report["memory_total"] == 10
    assert "migrateToURI3" not in source.asked


def test_a_cancel_stops_it_and_the_guest_stays() -> None:
    source = Libvirt(RUNNING, jobs=100)
    with pytest.raises(OperationCancelled):
        migration(source, Libvirt(None)).carry(PLAN, Asked())
    assert source.asked == ["abortJob", "start"]
    source = Libvirt(RUNNING)
    with pytest.raises(OperationCancelled):
        migration(source, Libvirt(None)).carry(PLAN, Asked())
    assert source.asked == [], "it is not even begun"


def test_a_cancel_comes_too_late_for_a_guest_that_has_arrived() -> None:
    assert migration(Libvirt(GONE), Libvirt(RUNNING)).carry(PLAN, Asked())["elapsed_ms"] == 0


def test_what_takes_too_long_is_given_up_or_forced_and_then_given_up() -> None:
    slow = {"time_elapsed": 4000}
    source = Libvirt(RUNNING, jobs=100, **slow)
    with pytest.raises(TaskTimeout):
        migration(source, Libvirt(None)).carry(MigrationPlan("u", "x", "x", timeout=3))
    assert source.asked == ["abortJob", "start"]
    source = Libvirt(RUNNING, jobs=4, **slow)
    with pytest.raises(MigrationFailed, match="before the guest was there"):
        migration(source, Libvirt(None)).carry(MigrationPlan("u", "x", "x", timeout=3, on_timeout="force"))
    assert source.asked == ["suspend", "start"]
    source = Libvirt(RUNNING, jobs=100, time_elapsed=7000)
    with pytest.raises(TaskTimeout):
        migration(source, Libvirt(None)).carry(MigrationPlan("u", "x", "x", timeout=3, on_timeout="force"))
    assert source.asked == ["suspend", "abortJob", "start"]


def test_post_copy_begins_after_the_first_pass_and_cannot_be_cancelled() -> None:
    source = Libvirt(RUNNING, jobs=6, memory_iteration=2)
    source.after = lambda: setattr(source, "current", GONE)
    plan = MigrationPlan("u", "x", "x", post_copy=True)
    migration(source, Libvirt(RUNNING)).carry(plan)
    assert source.asked == ["migrateStartPostCopy"]


def test_a_guest_that_died_on_either_host_is_started_where_its_newest_disks_are() -> None:
    source = Libvirt(DIED)
    assert migration(source, Libvirt(None)).keep()
    assert source.asked == ["start"]
    source, destination = Libvirt(POST_COPY_FAILED), Libvirt(DIED)
    migration(source, destination).carry(PLAN)
    assert (source.asked, destination.asked) == (["destroy"], ["start"])
    assert not migration(Libvirt(GONE), Libvirt(RUNNING)).keep()


def test_a_guest_that_lacks_memory_gets_it_from_its_source_as_long_as_that_has_it() -> None:
    destination = Libvirt(LACKING)

    class Resumed(Libvirt):
        def migrateToURI3(self, _uri: str, _parameters: Any, flags: int) -> None:  # noqa: N802
            assert flags & libvirt.VIR_MIGRATE_POSTCOPY_RESUME
            self.current, destination.current = GONE, RUNNING

    source = Resumed(POST_COPY_FAILED)
    migration(source, destination).carry(PLAN)
    assert (source.asked, destination.asked) == ([], [])


@pytest.mark.parametrize("here", [DIED, None, POST_COPY_FAILED])
def test_a_guest_that_lacks_memory_for_good_is_started_anew_where_it_was(
    here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FETCH_SECONDS", 0.0)
    source, destination = Libvirt(here), Libvirt(LACKING)
    migration(source, destination).carry(PLAN)
    assert destination.asked == ["destroy", "start"]
    assert source.asked == (["destroy"] if here is POST_COPY_FAILED else [])


def test_a_destination_that_waits_for_a_dead_source_for_ever_is_not_let(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SURE_SECONDS", 0.5)
    source = Libvirt(DIED, jobs=100)

    class Waiting(Libvirt):
        def destroy(self, _uuid: str) -> None:
            self.asked.append("destroy")
            self.current, source.jobs = RUNNING, 0

    destination = Waiting(LACKING)
    migration(source, destination).carry(MigrationPlan("u", "x", "x", post_copy=True))
    assert destination.asked == ["destroy", "start"]


def test_what_waits_for_a_guest_may_go_and_a_guest_may_not() -> None:
    waiting, there = Libvirt(EXPECTED), Libvirt(RUNNING)
    assert dismiss_incoming(waiting, "uuid")  # type: ignore[arg-type]
    assert waiting.asked == ["destroy"]
    assert not dismiss_incoming(there, "uuid")  # type: ignore[arg-type]
    assert there.asked == []
    assert dismiss_incoming(Libvirt(None), "uuid")  # type: ignore[arg-type]
    assert not arrived(waiting, "uuid")  # type: ignore[arg-type]


def test_libvirt_is_told_what_is_wanted_and_nothing_else() -> None:
    flags = PLAN.flags()
    assert flags & libvirt.VIR_MIGRATE_NON_SHARED_INC
    assert not flags & (libvirt.VIR_MIGRATE_UNDEFINE_SOURCE | libvirt.VIR_MIGRATE_TLS | libvirt.VIR_MIGRATE_POSTCOPY)
    assert not MigrationPlan("u", "x", "x").flags() & (libvirt.VIR_MIGRATE_NON_SHARED_INC | libvirt.VIR_MIGRATE_UNSAFE)
    assert MigrationPlan("u", "x", "x", unsafe=True).flags() & libvirt.VIR_MIGRATE_UNSAFE
    assert MigrationPlan("u", "x", "x", native_tls=True).flags() & libvirt.VIR_MIGRATE_TLS
    assert set(PLAN.parameters()) == {"destination_xml", "persistent_xml", "migrate_disks"}
    assert MigrationPlan("u", "x", "x", bandwidth_mib=7).parameters()["bandwidth"] == 7


def test_progress_is_what_need_not_be_sent_any_more() -> None:
    stats = MigrationStats.read(
        {"memory_total": 100, "memory_remaining": 40, "disk_total": 50, "disk_remaining": 10, "memory_dirty_rate": 3}
        | {"memory_page_size": 4096}
    )
    assert (stats.done, stats.total, stats.dirty_rate) == (100, 150, 12288)


DOMAIN = """\
<domain type='kvm'>
  <name>web1</name>
  <metadata><v:instance xmlns:v='https://virtflow.dev/xmlns/1' operation='old' host='a'/></metadata>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type><kernel>/a/_base/k</kernel><nvram>/a/u/nvram.fd</nvram></os>
  <cpu mode='custom'><model>Nehalem</model></cpu>
  <devices>
    <emulator>/usr/bin/qemu</emulator>
    <disk type='file' device='disk'><source file='/a/u/disk'/><target dev='vda'/>
      <backingStore type='file'><source file='/a/_base/b'/></backingStore></disk>
    <disk type='file' device='cdrom'><source file='/a/u/disk.config'/><target dev='sda'/><readonly/></disk>
    <disk type='file' device='disk'><source file='/a/u/drive'/><target dev='vdb'/><readonly/></disk>
    <disk type='network' device='disk'><source protocol='iscsi' name='x'/><target dev='vdc'/></disk>
    <serial type='file'><source path='/a/u/console.log' append='on'/></serial>
  </devices>
</domain>"""


def test_the_domain_arrives_with_the_paths_of_its_new_host() -> None:
    moved = relocate(DOMAIN, Relocation("/a/u", "/b/x/u", "new", "b", "/opt/qemu", kernel="/b/x/_base/k"))
    assert "/a/" not in moved
    for text in ("/b/x/u/disk.config", "/b/x/u/console.log", "/b/x/u/nvram.fd", "/b/x/_base/k", "/opt/qemu"):
        assert text in moved
    assert "backingStore" not in moved
    assert 'operation="new"' in moved
    assert 'host="b"' in moved


def test_only_what_a_guest_can_write_to_is_copied() -> None:
    assert [(disk.target, disk.writable) for disk in moving_disks(DOMAIN)] == [
        ("vda", True),
        ("sda", False),
        ("vdb", False),
    ]
    assert machine_of(DOMAIN) == ("kvm", "x86_64", "pc-q35-7.2")
    assert "Nehalem" in str(cpu_of(DOMAIN))


LOCAL = {"kind": "file", "path": "/volumes/volume-v", "format": "raw"}
REMOTE = {"kind": "iscsi", "address": "10.0.0.1", "port": 3260, "target": "iqn.x:v", "lun": 1, "user": "me"}


def volume_xml(source: Mapping[str, Any], cache: str = "none") -> str:
    disk = disk_element(volume_disk(source, "virtio", "vdd", "v", cache))
    disk.append(E.address(type="pci", slot="0x07"))
    return str(etree.tostring(disk, encoding="unicode"))


def with_volume(source: Mapping[str, Any], cache: str = "none") -> str:
    return DOMAIN.replace("<serial type='file'>", volume_xml(source, cache) + "<serial type='file'>")


@pytest.mark.parametrize(("before", "after"), [(LOCAL, REMOTE), (REMOTE, LOCAL), (REMOTE, REMOTE)])
@pytest.mark.parametrize("encryption", ["", "luks"])
def test_a_volume_is_reached_as_the_new_host_reaches_it_and_stays_the_device_that_it_is(
    before: Mapping[str, Any], after: Mapping[str, Any], encryption: str
) -> None:
    before, after = {**before, "encryption": encryption}, {**after, "encryption": encryption}
    moved = relocate(with_volume(before), Relocation("/a/u", "/b/u", "new", "b", volumes={"v": after, "other": LOCAL}))
    (disk,) = (each for each in parse(moved).iterfind("devices/disk") if each.findtext("serial") == "v")
    assert etree.tostring(disk, with_tail=False, encoding="unicode") == volume_xml(after)


@pytest.mark.parametrize(
    ("source", "cache", "shared", "unsafe"),
    [
        (LOCAL, "none", False, True),
        (LOCAL, "writeback", False, False),
        (LOCAL, "none", True, False),
        (REMOTE, "none", False, False),
    ],
)
def test_libvirt_is_overruled_only_where_all_that_it_takes_for_files_of_this_host_is_copied_or_a_volume(
    source: Mapping[str, Any], cache: str, shared: bool, unsafe: bool
) -> None:
    plan = migrations(Describing(with_volume(source, cache)))._plan("uuid", LANDING | {"shared": shared}, WANTED)
    assert (plan.unsafe, plan.disks) == (unsafe, () if shared else ("vda",))


class Host:
    """A libvirt whose host can run what it says, and compares CPUs with a fixed result."""

    def __init__(self, compared: int = 1, uri: str = "qemu:///system") -> None:
        self.uri = uri
        self.compared = compared

    def capabilities(self) -> HostCapabilities:
        machines = ("pc-q35-7.2",)
        return HostCapabilities("x86_64", ("qemu",), "/usr/bin/qemu", "q35", False, "9.0.0", "7.2.0", machines=machines)

    def with_connection(self, _action: str, _domain: str, function: Any) -> Any:
        return function(self)

    def compareHypervisorCPU(self, *_arguments: object) -> int:  # noqa: N802
        return self.compared


class Describing(Host):
    """One that has a domain, too."""

    def __init__(self, xml: str) -> None:
        super().__init__()
        self._xml = xml

    def with_domain(self, _action: str, _domain: str, function: Any) -> Any:
        return function(self)

    def XMLDesc(self, _flags: int) -> str:  # noqa: N802
        return self._xml


LANDING = {
    **dict.fromkeys(("emulator", "kernel", "initrd", "migrate_uri", "listen_address")),
    "source_directory": "/a/u",
    "directory": "/b/u",
    "operation": "new",
    "host": "b",
    "uri": "u",
    "disks_port": 0,
    "volumes": {"v": REMOTE},
}
WANTED = dict.fromkeys(("bandwidth", "auto_converge", "post_copy", "complete_within", "on_timeout"))


def migrations(host: Host, **options: Any) -> Migrations:
    given: dict[str, Any] = {"address": None, "transport": "tls", "native_tls": True, "port": 0, "disks_port": 0}
    given |= {"bandwidth": 0, "downtime": 0, "timeout": 0.0, "on_timeout": "abort", "auto_converge": True}
    settings = MigrationSettings(**given | {"post_copy": False} | options)
    return Migrations(host, None, "node7", settings)  # type: ignore[arg-type]


GUEST = {
    "libvirt_version": "9.0.0",
    "qemu_version": "7.2.0",
    "arch": "x86_64",
    "virt_type": "qemu",
    "machine": "pc-q35-7.2",
    "cpu": "<cpu/>",
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"qemu_version": "7.10.0"}, "qemu 7.2.0 here is older"),
        ({"libvirt_version": "9.0.1"}, "libvirt 9.0.0 here is older"),
        ({"arch": "aarch64"}, "architecture"),
        ({"virt_type": "kvm"}, "which this host has not"),
        ({"machine": "pc-q35-9.9"}, "no machine type"),
    ],
)
def test_a_guest_that_this_host_cannot_run_is_refused(change: dict[str, str], reason: str) -> None:
    migrations(Host()).check_fits(GUEST)
    with pytest.raises(HypervisorError, match=reason):
        migrations(Host()).check_fits(GUEST | change)
    with pytest.raises(HypervisorError, match="CPU lacks"):
        migrations(Host(compared=0)).check_fits(GUEST)


def test_an_embedded_driver_refuses_to_receive_and_others_say_where_they_are() -> None:
    with pytest.raises(HostLacks, match="libvirt daemon"):
        migrations(Host(uri="qemu:///embed?root=/x")).address_here()
    found = migrations(Host()).address_here()
    assert (found["uri"], found["migrate_uri"], found["listen_address"]) == (
        *("qemu+tls://node7/system", "tcp://node7"),
        None,
    )
    found = migrations(Host(), address="fd00::7", transport="ssh", port=49152).address_here()
    assert (found["uri"], found["migrate_uri"], found["listen_address"]) == (
        *("qemu+ssh://[fd00::7]/system", "tcp://[fd00::7]:49152"),
        "fd00::7",
    )
