"""A spawn's way through its states, what it tells others, server groups, cables, and what its image wants."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from tests.functional.nodes import NETWORK, CommandLine, Node, node_up, small
from tests.lab.processes import wait_until
from virtflow import faults
from virtflow.engine.run import TaskEvent
from virtflow.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    NoValidHost,
    OperationFailed,
    RevertIncomplete,
    VirtflowError,
)
from virtflow.images.catalog import LocalCatalog

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(180)]

NodeMaker = Callable[..., Node]


@pytest.fixture
def make_node(embed_root: Path, _session_hypervisor: Any, catalog: Path) -> Iterator[NodeMaker]:
    """``make_node(on_event=..., **settings)``, once per test."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(node_up(embed_root, catalog, **options))


# -- states -----------------------------------------------------------------------------------------------------------


def test_the_instance_goes_through_its_task_states_in_order(make_node: NodeMaker) -> None:
    seen: list[tuple[str, str | None]] = []

    def look(event: TaskEvent) -> None:
        if (event.state == "SUCCESS" and event.task in ("Accept", "CommitQuota")) or event.task.startswith("Enter"):
            (row,) = node.rows("instances")
            if not seen or seen[-1] != (row["vm_state"], row["task_state"]):
                seen.append((row["vm_state"], row["task_state"]))

    node = make_node(on_event=look)
    node.spawn("web1")
    chain = ["SCHEDULING", "NETWORKING", "BLOCK_DEVICE_MAPPING", "SPAWNING"]
    assert seen == [("BUILDING", state) for state in chain]
    instance = node.instance("web1")
    assert (instance.vm_state, instance.task_state) == ("ACTIVE", None)
    assert instance.launched_at is not None
    assert instance.created_at <= instance.launched_at


def test_an_instance_that_somebody_else_has_changed_is_not_overrun(make_node: NodeMaker) -> None:
    def interfere(event: TaskEvent) -> None:
        if (event.task, event.state) == ("PlugVifs", "SUCCESS"):
            node.instances.compare_and_set(node.instance("web1").uuid, {}, {"task_state": "DELETING"})

    node = make_node(on_event=interfere)
    before = node.residue()
    with pytest.raises(Conflict, match=r"cannot go on building instance 'web1': it is BUILDING \(DELETING\), not"):
        node.spawn("web1")
    assert node.left_since(before) == []


def test_a_spawn_that_failed_has_never_been_but_its_fault_stays_readable(node: Node) -> None:
    with faults.injected("DefineDomain:after:raise"), pytest.raises(OperationFailed):
        node.spawn("web1")
    with pytest.raises(NotFound):
        node.instance("web1")
    assert node.last().error == "DefineDomain: injected fault after DefineDomain"


def test_an_instance_of_which_something_is_left_stays_as_error_until_that_is_paid(node: Node) -> None:
    before = node.residue()
    with faults.injected("WaitRunning:after:raise;DefineDomain.revert:before:raise:*"), pytest.raises(RevertIncomplete):
        node.spawn("web1")
    instance = node.instance("web1")
    assert (instance.vm_state, instance.task_state, instance.host) == ("ERROR", None, node.config.host)
    assert instance.fault is not None
    assert instance.fault.endswith("1 thing(s) are left of it")
    assert node.runner.retry_revert(node.last().id).outcome == "REVERTED"
    with pytest.raises(NotFound):
        node.instance("web1")
    assert node.left_since(before) == []


def test_an_instance_in_error_can_be_deleted_and_its_name_used_again(node: Node) -> None:
    with faults.injected("WaitRunning:after:raise;DefineDomain.revert:before:raise:*"), pytest.raises(RevertIncomplete):
        node.spawn("web1")
    owing = node.last().id
    node.delete("web1")
    node.spawn("web1")
    assert node.instance("web1").vm_state == "ACTIVE"
    node.runner.retry_revert(owing)
    assert node.state_of("web1") == "running"


# -- notifications ----------------------------------------------------------------------------------------------------


def told(node: Node) -> list[tuple[str, dict[str, Any]]]:
    documents = [json.loads(line) for line in (node.state / "notifications.jsonl").read_text().splitlines()]
    return [(document["event_type"], document["payload"]["data"]) for document in documents]


def test_what_happens_to_an_instance_is_told(make_node: NodeMaker) -> None:
    node = make_node(**{"notifications.drivers": "file"})
    operation = node.spawn("web1", admin_password="hunter22", user_data=b"secret-data", meta={"token": "secret-meta"})
    address = node.port("web1").address
    node.delete("web1")
    events = told(node)
    assert [event for event, _data in events] == [
        *("instance.create.start", "instance.create.end", "instance.delete.start", "instance.delete.end")
    ]
    start, end = events[0][1], events[1][1]
    assert (start["vm_state"], start["host"], start["addresses"]) == ("BUILDING", None, [])
    assert (end["vm_state"], end["host"], end["image_name"]) == ("ACTIVE", node.config.host, "halt")
    assert [(port["address"], port["network"]) for port in end["addresses"]] == [(address, NETWORK)]
    assert (end["operation"], end["fault"]) == (operation.id, None)
    assert events[3][1]["deleted_at"] is not None
    text = (node.state / "notifications.jsonl").read_text()
    assert "hunter22" not in text
    assert "secret-" not in text


def test_a_failure_is_told_when_everything_is_taken_back(make_node: NodeMaker) -> None:
    node = make_node(**{"notifications.drivers": "file"})
    node.spawn("web1", networks=[{"network": NETWORK, "address": "10.93.7.9"}])
    with pytest.raises(Conflict):
        node.spawn("web2", networks=[{"network": NETWORK, "address": "10.93.7.9"}])
    event, data = told(node)[-1]
    assert (event, data["name"], data["vm_state"], data["addresses"]) == (
        "instance.create.error",
        "web2",
        "BUILDING",
        [],
    )
    assert data["fault"]["exception"] == "Conflict"
    assert "10.93.7.9 is in use" in data["fault"]["message"]


def test_an_undo_is_told_as_one(make_node: NodeMaker) -> None:
    node = make_node(**{"notifications.drivers": "file"})
    node.runner.undo(node.spawn("web1").id)
    event, data = told(node)[-1]
    assert (event, data["fault"]) == ("instance.create.undone", None)


# -- server groups ----------------------------------------------------------------------------------------------------


def test_a_host_that_has_a_member_of_an_anti_affinity_group_gets_no_second_one(node: Node) -> None:
    groups = node.runner.services["server_groups"]
    group = groups.create("spread", node.config.project, "anti-affinity")
    node.spawn("web1", server_group="spread")
    before = node.residue()
    with pytest.raises(NoValidHost, match=r"server group spread \(anti-affinity\): instance web1 is on it"):
        node.spawn("web2", server_group="spread")
    assert node.left_since(before) == []
    assert [member.name for member in groups.members(group.id)] == ["web1"]
    node.delete("web1")
    node.spawn("web2", server_group="spread")


def test_members_of_an_affinity_group_share_a_host(node: Node) -> None:
    groups = node.runner.services["server_groups"]
    group = groups.create("together", node.config.project, "affinity")
    for name in ("web1", "web2"):
        node.spawn(name, server_group="together")
    assert {member.host for member in groups.members(group.id)} == {node.config.host}


def test_a_server_group_that_does_not_exist_is_refused_at_once(node: Node) -> None:
    with pytest.raises(NotFound, match="server group 'none' not found"):
        node.spawn("web1", server_group="none")
    assert node.rows("instances") == []


# -- cables -----------------------------------------------------------------------------------------------------------


class Spawning(threading.Thread):
    def __init__(self, node: Node, name: str) -> None:
        super().__init__(daemon=True)
        self.error: Exception | None = None
        self._node, self._name = node, name
        self.start()

    def run(self) -> None:
        try:
            self._node.runner.run(small(self._name))
        except VirtflowError as error:
            self.error = error


def paused(node: Node, name: str) -> bool:
    rows = node.rows("instances", name=name)
    return bool(rows) and node.hypervisor.state(rows[0]["uuid"]) == "paused"


def test_a_guest_stays_paused_until_somebody_outside_says_that_its_cable_is_in(make_node: NodeMaker) -> None:
    node = make_node(**{"network.vif_events": "external"})
    spawning = Spawning(node, "web1")
    assert wait_until(lambda: paused(node, "web1"), 30, 0.05)
    time.sleep(0.5)
    assert paused(node, "web1")
    node.runner.services["vif_events"].receive(node.instance("web1").uuid, node.port("web1").id)
    spawning.join(30)
    assert spawning.error is None
    assert node.state_of("web1") == "running"


def test_a_cable_that_cannot_be_put_in_fails_the_spawn(make_node: NodeMaker) -> None:
    node = make_node(**{"network.vif_events": "external"})
    before = node.residue()
    spawning = Spawning(node, "web1")
    assert wait_until(lambda: paused(node, "web1"), 30, 0.05)
    node.runner.services["vif_events"].receive(node.instance("web1").uuid, node.port("web1").id, failed=True)
    spawning.join(30)
    assert "its network reports a failure" in str(spawning.error)
    assert node.left_since(before) == []
    assert node.rows("vif_events") == []


def test_a_cable_that_nobody_puts_in_is_waited_for_no_longer_than_configured(make_node: NodeMaker) -> None:
    node = make_node(**{"network.vif_events": "external", "network.vif_plugging_timeout": "0.5"})
    before = node.residue()
    with pytest.raises(OperationFailed, match=r"WaitVifPlugged: cannot plug port .*: not plugged after 0.5 s"):
        node.spawn("web1")
    assert node.left_since(before) == []


def test_a_missing_cable_can_be_configured_not_to_matter(make_node: NodeMaker) -> None:
    settings = {"vif_events": "external", "vif_plugging_timeout": "0.3", "vif_plugging_is_fatal": "false"}
    node = make_node(**{f"network.{name}": value for name, value in settings.items()})
    node.spawn("web1")
    assert node.state_of("web1") == "running"


def test_an_event_that_came_before_it_was_expected_counts_and_waiting_twice_is_waiting_once(
    make_node: NodeMaker,
) -> None:
    def report(event: TaskEvent) -> None:
        if (event.task, event.state) == ("AllocatePorts", "SUCCESS"):
            node.runner.services["vif_events"].receive(node.instance("web1").uuid, node.port("web1").id)

    node = make_node(on_event=report, **{"network.vif_events": "external", "network.vif_plugging_timeout": "5"})
    with faults.injected("WaitVifPlugged:after:repeat"):
        node.spawn("web1")
    assert node.state_of("web1") == "running"
    assert node.rows("vif_events") == []


def test_an_event_that_came_while_nobody_ran_the_operation_counts(command_line: CommandLine) -> None:
    external = {"VIRTFLOW_NETWORK__VIF_EVENTS": "external", "VIRTFLOW_NETWORK__VIF_PLUGGING_TIMEOUT": "20"}
    killed = command_line(*command_line.spawn_words("web1"), fault="StartDomainPaused:after:kill", **external)
    assert killed.code == -9
    (port,) = command_line("instance", "show", "web1", "-f", "json").json["ports"]
    assert command_line("event", "vif-plugged", "web1", port["mac"]).code == 0
    resumed = command_line("operation", "resume", "--last")
    assert resumed.code == 0, resumed.err
    assert command_line("instance", "show", "web1", "-f", "json").json["vm_state"] == "ACTIVE"


def test_our_own_cables_are_seen_to_be_in(node: Node) -> None:
    node.spawn("web1")
    port = node.port("web1")
    assert node.runner.services["taps"].is_plugged(port.tap, node.network.bridge)
    node.hypervisor.destroy(node.instance("web1").uuid)
    assert not node.runner.services["taps"].is_plugged(port.tap, node.network.bridge), "nobody holds the other end"


# -- what an image wants ----------------------------------------------------------------------------------------------


@pytest.fixture
def wishes(node: Node, halting_image: Path, tmp_path: Path) -> Callable[..., None]:
    """``wishes(hw_disk_bus="scsi")``: the image "wishing" has these properties."""
    catalog = LocalCatalog(tmp_path / "catalog")
    node.runner.services._made["image_source"] = catalog

    def add(**properties: str) -> None:
        catalog.add(halting_image, "wishing", "raw", properties=properties)

    return add


def test_the_guest_gets_the_hardware_that_its_image_wants(node: Node, wishes: Callable[..., None]) -> None:
    wishes(
        hw_machine_type="pc",
        hw_disk_bus="scsi",
        hw_cdrom_bus="sata",
        hw_vif_model="e1000",
        hw_video_model="cirrus",
        hw_rng_model="virtio-non-transitional",
        hw_qemu_guest_agent="yes",
    )
    node.spawn("web1", image="wishing", config_drive=True)
    domain = etree.fromstring(node.hypervisor.domain_xml(node.instance("web1").uuid))
    assert domain.find("os/type").get("machine").startswith("pc-i440fx")
    assert [disk.get("bus") for disk in domain.findall("devices/disk/target")] == ["scsi", "sata"]
    assert domain.find("devices/interface/model").get("type") == "e1000"
    assert domain.find("devices/video/model").get("type") == "cirrus"
    assert domain.find("devices/rng").get("model") == "virtio-non-transitional"
    assert domain.find("devices/channel/target").get("name") == "org.qemu.guest_agent.0"


def test_a_guest_with_uefi_has_its_variables_in_its_directory_and_loses_them_with_it(
    node: Node, wishes: Callable[..., None]
) -> None:
    from virtflow.errors import HostLacks
    from virtflow.hypervisor.firmware import find_uefi

    try:
        find_uefi("x86_64")
    except HostLacks as error:
        pytest.skip(str(error))
    wishes(hw_firmware_type="uefi")
    before = node.residue()
    operation = node.spawn("web1", image="wishing", memory_mib=128)
    assert (node.directory("web1") / "nvram.fd").exists()
    node.runner.undo(operation.id)
    assert node.left_since(before) == []


def test_vnc_is_on_the_hosts_own_loopback_only(make_node: NodeMaker) -> None:
    node = make_node(**{"libvirt.vnc": "true"})
    node.spawn("web1")
    domain = etree.fromstring(node.hypervisor.domain_xml(node.instance("web1").uuid))
    assert domain.find("devices/graphics").get("listen") == "127.0.0.1"


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"hw_disk_bus": "floppy"}, "image property hw_disk_bus: 'floppy' is none of virtio, scsi"),
        ({"hw_machine_type": "virt"}, "has machine types pc, q35, the image wants virt"),
        ({"hw_machine_type": "q35", "hw_disk_bus": "ide"}, "disk_bus: machine q35 has no IDE"),
        ({"os_secure_boot": "required"}, "image property os_secure_boot: secure boot is not supported"),
    ],
)
def test_hardware_that_cannot_be_is_refused_and_leaves_nothing(
    node: Node, wishes: Callable[..., None], properties: dict[str, str], message: str
) -> None:
    wishes(**properties)
    before = node.residue()
    with pytest.raises((InvalidRequest, NoValidHost), match=message):
        node.spawn("web1", image="wishing")
    assert node.left_since(before) == []


def test_a_bus_that_has_no_room_for_every_disk_is_noticed_before_anything_is_made_on_the_host(
    node: Node, wishes: Callable[..., None]
) -> None:
    wishes(hw_machine_type="pc", hw_disk_bus="ide")
    with pytest.raises(InvalidRequest, match="disk_bus: ide takes at most 4 disks"):
        node.spawn("web1", image="wishing", ephemeral_gib=[1] * 3, swap_mib=4)
    begun = {row["atom"] for row in node.rows("journal", event="RUNNING")}
    assert "ResolveHardware" in begun
    assert not begun & {"MakeInstanceDir", "AllocatePorts", "CreateEphemerals"}
