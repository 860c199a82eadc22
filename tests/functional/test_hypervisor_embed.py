"""The hypervisor driver on libvirt's embedded driver and real QEMU (TCG)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab.processes import wait_until
from virtflow.activity import Activity
from virtflow.errors import HypervisorError, HypervisorUnreachable, InvalidDomainXml, NetworkError, TaskTimeout
from virtflow.hypervisor.domain_state import ask_qemu
from virtflow.hypervisor.domain_xml import DiskSpec, DomainSpec, VifSpec, build

if TYPE_CHECKING:
    from virtflow.hypervisor.hypervisor import Hypervisor

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(120)]

NO_DOMAIN = 42


@pytest.fixture
def spec(tmp_path: Path) -> DomainSpec:
    """A guest without disks: its firmware looks for something to boot and then waits."""
    return DomainSpec(
        uuid=str(uuid.uuid4()),
        name="web-1",
        operation="0b7b0f8e-52d5-4a7e-8f0d-0a43c8a1d001",
        host="host-a",
        virt_type="qemu",
        machine="q35",
        vcpus=1,
        memory_mib=32,
        console_log=str(tmp_path / "console.log"),
        tcg_cache_mib=8,
    )


@pytest.fixture
def defined(hypervisor: Hypervisor, spec: DomainSpec) -> str:
    hypervisor.define(build(spec))
    return spec.uuid


def raw(hypervisor: Hypervisor, uuid: str):  # type: ignore[no-untyped-def]  # libvirt-python carries no types
    """libvirt's own handle of the domain."""
    from virtflow.hypervisor.connection import open_connection

    return open_connection(hypervisor.uri, embed_root=hypervisor._embed_root).lookupByUUIDString(uuid)


# -- what the host says -----------------------------------------------------------------------------------------------


def test_the_host_says_what_it_can_run(hypervisor: Hypervisor) -> None:
    found = hypervisor.capabilities()
    assert (found.arch, found.machine) == ("x86_64", "q35")
    assert "qemu" in found.virt_types
    assert found.emulator is not None
    assert Path(found.emulator).exists()
    assert not found.has_nwfilter
    assert [part.isdigit() for part in found.qemu_version.split(".")] == [True] * 3
    assert (Path(found.schema_dir) / "domain.rng").exists()


def test_a_driver_without_filters_has_none_and_says_so_when_asked_for_one(hypervisor: Hypervisor) -> None:
    assert hypervisor.filters() == []
    hypervisor.undefine_filter("virtflow-vf0")
    with pytest.raises(NetworkError, match=r"^cannot define filter virtflow-vf0: .*not supported"):
        hypervisor.define_filter("<filter name='virtflow-vf0'/>")


def test_a_process_can_let_go_of_its_connection_and_open_it_again_any_number_of_times(
    hypervisor: Hypervisor, embed_root: Path
) -> None:
    from virtflow.hypervisor.hypervisor import Hypervisor

    for _ in range(30):  # libvirt has room for two dozen drivers, and each open would register one
        again = Hypervisor("qemu:///embed", embed_root)
        assert again.domains() == []
        again.close()


# -- definitions ------------------------------------------------------------------------------------------------------


def test_a_domain_is_defined_described_and_undefined_and_each_may_be_repeated(
    hypervisor: Hypervisor, spec: DomainSpec
) -> None:
    assert hypervisor.domain_xml(spec.uuid) is None
    for _ in range(2):
        hypervisor.define(build(spec))
        assert hypervisor.state(spec.uuid) == "shutoff"
    xml = hypervisor.domain_xml(spec.uuid)
    assert xml is not None
    for _ in range(2):
        hypervisor.undefine(spec.uuid)
        assert hypervisor.state(spec.uuid) is None
    hypervisor.define(xml)
    assert hypervisor.domain_xml(spec.uuid) == xml


def test_defining_the_same_uuid_again_replaces_the_definition(hypervisor: Hypervisor, spec: DomainSpec) -> None:
    hypervisor.define(build(spec))
    hypervisor.define(build(replace(spec, memory_mib=48)))
    assert f">{48 * 1024}</memory>" in (hypervisor.domain_xml(spec.uuid) or "")


def test_a_name_that_another_domain_has_is_refused_and_that_domain_stays(
    hypervisor: Hypervisor, spec: DomainSpec, defined: str
) -> None:
    other = replace(spec, uuid=str(uuid.uuid4()))
    with pytest.raises(HypervisorError, match=r"^cannot define domain web-1: .*already exists with uuid"):
        hypervisor.define(build(other))
    assert [domain.uuid for domain in hypervisor.domains()] == [defined]


def test_libvirt_checks_a_definition_against_its_schema(hypervisor: Hypervisor, spec: DomainSpec) -> None:
    with pytest.raises(HypervisorError, match="vcpux") as caught:
        hypervisor.define(build(spec).replace("vcpu>", "vcpux>"))
    assert "\n" not in str(caught.value)
    assert hypervisor.state(spec.uuid) is None


def test_a_definition_with_a_doctype_never_reaches_libvirt(hypervisor: Hypervisor, spec: DomainSpec) -> None:
    with pytest.raises(InvalidDomainXml, match="DOCTYPE"):
        hypervisor.define('<!DOCTYPE d [<!ENTITY e "x">]>' + build(spec))


def test_domains_are_listed_with_the_operation_that_made_them(
    hypervisor: Hypervisor, spec: DomainSpec, defined: str
) -> None:
    foreign = "<domain type='qemu'><name>a-foreign</name><memory>32768</memory><os><type>hvm</type></os></domain>"
    hypervisor.define(foreign)
    assert [(domain.name, domain.state, domain.operation) for domain in hypervisor.domains()] == [
        ("a-foreign", "shutoff", None),
        ("web-1", "shutoff", spec.operation),
    ]


def test_undefine_takes_a_managed_save_along(hypervisor: Hypervisor, defined: str, embed_root: Path) -> None:
    hypervisor.start(defined)
    raw(hypervisor, defined).managedSave(0)
    saves = embed_root / "lib" / "qemu" / "save"
    assert list(saves.iterdir()) != []
    hypervisor.undefine(defined)
    assert list(saves.iterdir()) == []
    assert hypervisor.state(defined) is None


# -- running ----------------------------------------------------------------------------------------------------------


def test_a_guest_is_started_and_destroyed_and_each_may_be_repeated(hypervisor: Hypervisor, defined: str) -> None:
    for _ in range(2):
        hypervisor.start(defined)
        hypervisor.wait_running(defined)
        assert hypervisor.state(defined) == "running"
    for _ in range(2):
        hypervisor.destroy(defined)
        assert hypervisor.state(defined) == "shutoff"


def test_a_guest_started_paused_waits_until_it_is_resumed(hypervisor: Hypervisor, defined: str) -> None:
    for _ in range(2):
        hypervisor.start(defined, paused=True)
        assert hypervisor.state(defined) == "paused"
    with pytest.raises(TaskTimeout):
        hypervisor.wait_running(defined, Activity("WaitRunning", deadline=time.monotonic() + 0.2))
    for _ in range(2):
        hypervisor.resume(defined)
        assert hypervisor.state(defined) == "running"


def test_starting_a_paused_guest_lets_it_run(hypervisor: Hypervisor, defined: str) -> None:
    hypervisor.start(defined, paused=True)
    hypervisor.start(defined)
    assert hypervisor.state(defined) == "running"


def test_what_is_not_there_needs_no_removing_but_cannot_run(hypervisor: Hypervisor, embed_root: Path) -> None:
    absent = str(uuid.uuid4())
    hypervisor.destroy(absent)
    hypervisor.undefine(absent)
    assert hypervisor.shutdown(absent, 1)
    assert hypervisor.state(absent) is None
    for call in (hypervisor.start, hypervisor.resume, hypervisor.wait_running):
        with pytest.raises(HypervisorError) as caught:
            call(absent)
        assert caught.value.code == NO_DOMAIN
        assert caught.value.domain == absent


def test_a_start_without_its_disk_fails_by_name_and_leaves_the_definition(
    hypervisor: Hypervisor, spec: DomainSpec, tmp_path: Path
) -> None:
    disk = DiskSpec(str(tmp_path / "gone.qcow2"), "qcow2", "virtio", "vda")
    hypervisor.define(build(replace(spec, disks=(disk,))))
    with pytest.raises(HypervisorError, match=r"gone\.qcow2"):
        hypervisor.start(spec.uuid)
    assert hypervisor.state(spec.uuid) == "shutoff"


def test_a_guest_whose_qemu_was_killed_cannot_run_and_its_log_is_quoted(
    hypervisor: Hypervisor, defined: str, embed_root: Path, qemus: Callable[[Path], list[int]]
) -> None:
    hypervisor.start(defined)
    [pid] = qemus(embed_root)
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: hypervisor.state(defined) == "shutoff", 20)
    with pytest.raises(HypervisorError, match=r"cannot run domain web-1: its QEMU crashed; QEMU's log ends: .*crashed"):
        hypervisor.wait_running(defined)
    hypervisor.start(defined)
    assert hypervisor.state(defined) == "running"


@pytest.mark.parametrize("balloon", [True, False])
def test_a_qemu_that_ends_while_it_is_asked_something_has_not_answered(
    hypervisor: Hypervisor, spec: DomainSpec, qemus: Callable[[Path], list[int]], embed_root: Path, balloon: bool
) -> None:
    hypervisor.define(build(replace(spec, memballoon=balloon)))
    with pytest.raises(HypervisorError, match="not running"):
        hypervisor.with_domain("ask", spec.uuid, ask_qemu)
    hypervisor.start(spec.uuid)
    (pid,) = qemus(embed_root)
    assert hypervisor.with_domain("ask", spec.uuid, ask_qemu)
    os.kill(pid, signal.SIGSTOP)
    threading.Timer(0.5, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(HypervisorError):
        hypervisor.with_domain("ask", spec.uuid, ask_qemu)


def test_a_guest_undefined_while_it_runs_is_gone_once_destroyed(hypervisor: Hypervisor, defined: str) -> None:
    hypervisor.start(defined)
    for _ in range(2):
        hypervisor.undefine(defined)
        assert hypervisor.state(defined) == "running"
    hypervisor.destroy(defined)
    assert hypervisor.state(defined) is None


def test_a_guest_deaf_to_the_power_button_is_stopped_after_its_grace(hypervisor: Hypervisor, defined: str) -> None:
    hypervisor.start(defined)
    began = time.monotonic()
    assert not hypervisor.shutdown(defined, 0.5)
    assert time.monotonic() - began > 0.5
    assert hypervisor.state(defined) == "shutoff"
    assert hypervisor.shutdown(defined, 0.5)


def test_a_shutdown_that_runs_out_of_time_leaves_the_guest_running(hypervisor: Hypervisor, defined: str) -> None:
    hypervisor.start(defined)
    with pytest.raises(TaskTimeout):
        hypervisor.shutdown(defined, 60, Activity("ShutdownDomain", deadline=time.monotonic() + 0.3))
    assert hypervisor.state(defined) == "running"


def test_threads_that_start_one_guest_at_the_same_time_all_succeed(
    hypervisor: Hypervisor, defined: str, embed_root: Path, qemus: Callable[[Path], list[int]]
) -> None:
    failures: list[BaseException] = []

    def start() -> None:
        try:
            hypervisor.start(defined)
        except Exception as error:  # noqa: BLE001 - reported by the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert len(qemus(embed_root)) == 1
    assert hypervisor.state(defined) == "running"


@pytest.fixture
def tap() -> Iterator[str]:
    name = f"vf{uuid.uuid4().hex[:11]}"
    made = subprocess.run(["ip", "tuntap", "add", name, "mode", "tap"], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"no tap device can be made: {made.stderr.decode().strip()}")
    yield name
    subprocess.run(["ip", "link", "delete", name], check=True)


def test_a_tap_that_was_there_before_the_guest_is_used_and_outlives_it(
    hypervisor: Hypervisor, spec: DomainSpec, tap: str
) -> None:
    carrier = Path(f"/sys/class/net/{tap}/carrier")
    subprocess.run(["ip", "link", "set", tap, "up"], check=True)
    hypervisor.define(build(replace(spec, vifs=(VifSpec("52:54:00:11:22:33", tap, mtu=1450),))))
    hypervisor.start(spec.uuid)
    assert carrier.read_text().strip() == "1"
    hypervisor.destroy(spec.uuid)
    assert carrier.read_text().strip() == "0"


# -- one embed root, one process --------------------------------------------------------------------------------------


def test_a_second_embed_root_in_one_process_is_refused(hypervisor: Hypervisor, tmp_path: Path) -> None:
    from virtflow.hypervisor.hypervisor import Hypervisor

    with pytest.raises(HypervisorUnreachable, match=r"already runs an embedded driver in .*: one per process"):
        Hypervisor("qemu:///embed", tmp_path).domains()
    assert not (tmp_path / "etc").exists()


def test_a_second_hypervisor_on_the_same_root_shares_the_driver(
    hypervisor: Hypervisor, embed_root: Path, defined: str
) -> None:
    from virtflow.hypervisor.hypervisor import Hypervisor

    second = Hypervisor(f"qemu:///embed?root={embed_root}")
    assert second.state(defined) == "shutoff"
    second.close()
    assert second.state(defined) == "shutoff"
    assert hypervisor.state(defined) == "shutoff"


OTHER_PROCESS = """
import sys, time
from pathlib import Path
from virtflow.errors import VirtflowError
from virtflow.hypervisor.hypervisor import Hypervisor
root, wait, *steps = sys.argv[1:]
hypervisor = Hypervisor("qemu:///embed", Path(root), wait_seconds=float(wait))
for step in steps:
    verb, _, argument = step.partition("=")
    try:
        if verb == "sleep":
            time.sleep(float(argument))
        elif verb == "define":
            hypervisor.define(Path(argument).read_text())
        else:
            print(verb, getattr(hypervisor, verb)(*([argument] if argument else [])), flush=True)
    except VirtflowError as error:
        print(type(error).__name__, error, flush=True)
    print("did", verb, flush=True)
"""


def other(root: Path, wait: float, *steps: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", OTHER_PROCESS, str(root), str(wait), *steps]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read_until(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    for found in process.stdout:
        if found.strip() == line:
            return
    pytest.fail(f"the other process ended without {line!r}: {process.communicate()}")


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = process.communicate(timeout=60)
    return out, err


def test_a_process_that_meets_a_held_root_waits_for_it(other_embed_root: Path) -> None:
    holder = other(other_embed_root, 5, "domains", "sleep=1")
    read_until(holder, "did domains")
    out, err = finish(other(other_embed_root, 30, "domains"))
    assert (out, err) == ("domains []\ndid domains\n", "")
    finish(holder)


def test_a_root_that_stays_held_is_reported_with_the_process_that_holds_it(other_embed_root: Path) -> None:
    holder = other(other_embed_root, 5, "domains", "sleep=30")
    read_until(holder, "did domains")
    out, err = finish(other(other_embed_root, 0.2, "domains"))
    holder.kill()
    finish(holder)
    assert out.startswith("HypervisorUnreachable cannot reach libvirt at qemu:///embed")
    assert f"process {holder.pid} runs the embedded driver in {other_embed_root} (waited 0.2 s)" in out
    assert err == ""


def test_libvirt_prints_nothing_of_its_own(other_embed_root: Path) -> None:
    absent = str(uuid.uuid4())
    out, err = finish(other(other_embed_root, 5, f"state={absent}", f"start={absent}", f"undefine={absent}"))
    assert "state None" in out
    assert "HypervisorError cannot start domain" in out
    assert err == ""


def test_the_drivers_configuration_is_written_once_and_then_the_users(other_embed_root: Path) -> None:
    configuration = other_embed_root / "etc" / "qemu.conf"
    finish(other(other_embed_root, 5, "domains"))
    assert 'stdio_handler = "file"' in configuration.read_text()
    assert [path.name for path in configuration.parent.iterdir()] == ["qemu.conf"]
    changed = configuration.read_text() + "# mine\n"
    configuration.write_text(changed)
    finish(other(other_embed_root, 5, "domains"))
    assert configuration.read_text() == changed


def test_a_root_that_cannot_be_one_is_refused_in_one_line(short_tmp_path: Path) -> None:
    file = short_tmp_path / "file"
    file.touch()
    for root, reason in ((file, "Not a directory"), (Path("/tmp") / ("x" * 60), "too long for QEMU's sockets")):
        out, err = finish(other(root, 1, "domains"))
        assert out.startswith("HypervisorUnreachable ")
        assert reason in out
        assert out.count("\n") == 2
        assert err == ""


def test_the_longest_root_runs_the_longest_name(
    short_tmp_path: Path, embed_root: Path, hypervisor: Hypervisor, spec: DomainSpec, qemus: Callable[[Path], list[int]]
) -> None:
    from virtflow.hypervisor.connection import LONGEST_EMBED_ROOT

    root = short_tmp_path / ("r" * (LONGEST_EMBED_ROOT - len(str(short_tmp_path)) - 1))
    shutil.copytree(embed_root / "cache", root / "cache")
    definition = short_tmp_path / "libvirt.xml"
    definition.write_text(build(replace(spec, name="n" * 63)))
    steps = [f"define={definition}", f"start={spec.uuid}", f"state={spec.uuid}", f"destroy={spec.uuid}"]
    out, _ = finish(other(root, 5, *steps))
    assert "state running" in out
    assert qemus(root) == []


@pytest.fixture
def definition(spec: DomainSpec, tmp_path: Path) -> Path:
    path = tmp_path / "libvirt.xml"
    path.write_text(build(spec))
    return path


def test_guests_survive_their_process_and_are_found_by_the_next(
    other_embed_root: Path, spec: DomainSpec, definition: Path, qemus: Callable[[Path], list[int]]
) -> None:
    first = other(other_embed_root, 5, f"define={definition}", f"start={spec.uuid}", "sleep=30")
    read_until(first, "did start")
    first.kill()
    finish(first)
    before = qemus(other_embed_root)
    assert len(before) == 1
    out, _ = finish(other(other_embed_root, 5, f"state={spec.uuid}", f"start={spec.uuid}", f"wait_running={spec.uuid}"))
    assert out.startswith("state running\n")
    assert "Error" not in out
    assert qemus(other_embed_root) == before
    out, _ = finish(other(other_embed_root, 5, f"destroy={spec.uuid}", f"undefine={spec.uuid}", "domains"))
    assert "domains []" in out
    assert qemus(other_embed_root) == []


def test_a_qemu_that_was_being_asked_what_it_can_when_its_asker_was_killed_is_ended_by_the_next(
    other_embed_root: Path, qemus: Callable[[Path], list[int]]
) -> None:
    shutil.rmtree(other_embed_root / "cache")
    first = other(other_embed_root, 5, "capabilities")
    assert wait_until(lambda: qemus(other_embed_root) != [], 60, 0.001)
    os.kill(first.pid, signal.SIGSTOP)
    asked = qemus(other_embed_root)
    first.kill()
    finish(first)
    out, _ = finish(other(other_embed_root, 5, "capabilities"))
    assert "Error" not in out
    assert not set(asked) & set(qemus(other_embed_root))
    assert list((other_embed_root / "lib" / "qemu").glob("qmp-*")) == []


@pytest.mark.parametrize("delay", [0.03, 0.1, 0.2])
def test_a_start_that_was_killed_midway_can_be_made_again(
    delay: float, other_embed_root: Path, spec: DomainSpec, definition: Path, qemus: Callable[[Path], list[int]]
) -> None:
    first = other(other_embed_root, 5, f"define={definition}", f"start={spec.uuid}")
    read_until(first, "did define")
    time.sleep(delay)
    first.kill()
    finish(first)
    out, _ = finish(other(other_embed_root, 5, f"start={spec.uuid}", f"wait_running={spec.uuid}", f"state={spec.uuid}"))
    assert "Error" not in out
    assert "state running" in out
    assert len(qemus(other_embed_root)) == 1
