"""A spawn from end to end: what the guest is, and what it was told."""

from __future__ import annotations

import hashlib
import json
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from lxml import etree

from tests.functional.nodes import Console, Node, booting, links_of, node_up, reachable_from, small
from virtflow import faults
from virtflow.errors import OperationFailed, RevertIncomplete

if TYPE_CHECKING:
    from virtflow.hypervisor.hypervisor import Hypervisor
    from virtflow.persistence.operations import Operation

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(180)]

GIB_IN_KIB = 1 << 20
USER_DATA = "#!/bin/sh\necho 'what \"the\" user said' > /dev/console\n# ünïcode & <xml>"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO5QGJLjXBJYgh9J0dHbU2rmKp0NnYVbdBzZpbRSLVh0 me@here"
FILE = b"key = value\n\0binary\xff"


class Booted:
    """One guest that was given everything, for the tests that only look at it."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.operation: Operation = node.runner.run(
            booting(
                "talker",
                disk_gib=2,
                title='<title> & "quotes"',
                user_data=USER_DATA.encode(),
                meta={"role": "front & <back>", "colour": "grün"},
                ssh_keys=[KEY],
                admin_password="correct horse",
                files=[{"path": "/etc/app.conf", "content": FILE}],
                availability_zone="zone-7",
            )
        )
        self.instance = node.instance("talker")
        self.port = node.port("talker")
        self.console = Console(node.directory("talker") / "console.log").wait_ready()

    def on_drive(self, path: str) -> bytes:
        return read_iso(self.node.directory("talker") / "disk.config", path)

    def domain(self) -> Any:
        return etree.fromstring(self.node.hypervisor.domain_xml(self.instance.uuid))


def read_iso(drive: Path, path: str) -> bytes:
    """A file of an ISO image, read by a program that we have not written."""
    argv = ["isoinfo", "-J", "-i", str(drive), "-x", f"/{path}"]
    return subprocess.run(argv, check=True, capture_output=True).stdout


@pytest.fixture(scope="module")
def booted(embed_root: Path, _session_hypervisor: Hypervisor, catalog: Path) -> Iterator[Booted]:
    with node_up(embed_root, catalog, **{"worker.zone": "zone-7"}) as node:
        yield Booted(node)


# -- what the guest says ----------------------------------------------------------------------------------------------


def test_the_guest_prints_the_metadata_that_it_was_given(booted: Booted) -> None:
    told = booted.console.document("CONFIG-DRIVE")
    assert told["uuid"] == booted.instance.uuid
    assert (told["name"], told["hostname"]) == ("talker", "talker")
    assert told["meta"] == {"role": "front & <back>", "colour": "grün"}
    assert told["public_keys"] == {"key-0": KEY}
    assert told["availability_zone"] == "zone-7"
    assert told["project_id"] == "default"


def test_the_guest_prints_the_user_data_that_it_was_given(booted: Booted) -> None:
    assert booted.console.block("USER-DATA") == USER_DATA


def test_the_guest_has_the_address_and_the_mac_of_its_port(booted: Booted) -> None:
    told = booted.console.document("NETWORK-DATA")
    assert [link["ethernet_mac_address"] for link in told["links"]] == [booted.port.mac]
    assert [network["ip_address"] for network in told["networks"]] == [booted.port.address]
    assert [service["address"] for service in told["services"]] == ["10.93.7.2"]
    assert booted.console.line("NIC") == f"lo {'00:' * 5}00" or booted.port.mac in booted.console.text
    assert booted.console.line("ADDRESS") == f"eth0 {booted.port.address} 255.255.255.0"
    assert booted.console.line("GATEWAY") == "10.93.7.1"


def test_the_guest_finds_an_interface_with_the_mac_of_its_port(booted: Booted) -> None:
    assert f"NIC eth0 {booted.port.mac}\n" in booted.console.text


def test_the_guest_is_reached_from_its_bridge(booted: Booted) -> None:
    assert reachable_from(booted.node.network.bridge, "10.93.7.1/24", booted.port.address)


def test_the_guests_disk_has_the_size_that_was_asked_for(booted: Booted) -> None:
    assert f"vda={2 * GIB_IN_KIB}" in booted.console.line("PARTS").split()


def test_an_injected_file_reaches_the_guest(booted: Booted) -> None:
    (file,) = booted.console.document("CONFIG-DRIVE")["files"]
    number = file["content_path"].rpartition("/")[2]
    assert f"CONTENT {number} {hashlib.sha256(FILE).hexdigest()}\n" in booted.console.text
    assert file["path"] == "/etc/app.conf"
    assert booted.on_drive(f"openstack{file['content_path']}") == FILE


def test_the_admin_password_is_on_the_config_drive(booted: Booted) -> None:
    assert booted.console.document("CONFIG-DRIVE")["admin_pass"] == "correct horse"


# -- what the host has ------------------------------------------------------------------------------------------------


def test_the_config_drive_can_be_read_by_its_owner_alone_and_lies_in_a_directory_of_the_instance(
    booted: Booted,
) -> None:
    drive = booted.node.directory("talker") / "disk.config"
    assert stat.S_IMODE(drive.stat().st_mode) == 0o600
    assert json.loads(booted.on_drive("openstack/latest/meta_data.json"))["name"] == "talker"


def test_the_domain_is_what_was_asked_for(booted: Booted) -> None:
    domain = booted.domain()
    assert (domain.findtext("name"), domain.findtext("uuid")) == ("talker", booted.instance.uuid)
    assert domain.findtext("title") == '<title> & "quotes"'
    assert (domain.get("type"), domain.findtext("vcpu")) == ("qemu", "1")
    assert domain.findtext("memory") == str(128 * 1024)
    assert domain.find("devices/interface/mac").get("address") == booted.port.mac
    assert domain.find("devices/interface/target").get("dev") == booted.port.tap
    assert domain.find("metadata/{*}instance").get("operation") == booted.operation.id


def test_the_tap_is_on_the_bridge_and_names_its_operation(booted: Booted) -> None:
    taps = {tap.name: tap for tap in booted.node.runner.services["taps"].list()}
    tap = taps[booted.port.tap]
    assert tap.bridge == booted.node.network.bridge
    assert tap.owner == f"virtflow:{booted.operation.id}:{booted.port.id}"


def test_the_root_disk_stands_on_the_cached_base_which_everybody_shares(booted: Booted) -> None:
    disk = booted.node.directory("talker") / "disk"
    argv = ["qemu-img", "info", "-U", "-f", "qcow2", "--output", "json", str(disk)]
    info = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    assert info["virtual-size"] == 2 << 30
    assert Path(info["backing-filename"]).parent == booted.node.config.instances.path / "_base"
    assert info["backing-filename-format"] == "raw"


def test_instance_quota_claim_and_secrets_are_settled(booted: Booted) -> None:
    node, instance = booted.node, booted.instance
    assert (instance.vm_state, instance.task_state, instance.host) == ("ACTIVE", None, node.config.host)
    charges = {row["resource"]: (row["amount"], row["state"]) for row in node.rows("quota_charges")}
    assert {state for _amount, state in charges.values()} == {"COMMITTED"}
    assert {resource: amount for resource, (amount, _state) in charges.items()} == {
        "instances": 1,
        "vcpus": 1,
        "memory_mib": 128,
        "disk_gib": 2,
    }
    (claim,) = node.rows("allocations")
    assert (claim["consumer"], claim["host"], claim["disk_gib"]) == (instance.uuid, node.config.host, 2)
    assert node.rows("secrets") == []
    assert node.rows("targets") == []
    assert {row["state"] for row in node.rows("ledger")} == {"PRESENT"}


def test_the_operation_tells_what_it_did(booted: Booted) -> None:
    plain = booted.node.runner.operations.get(booted.operation.id).to_dict()
    assert (plain["kind"], plain["target"], plain["state"]) == ("spawn", "instance:talker", "FINISHED")
    assert (plain["outcome"], plain["error"], plain["debts"]) == ("SUCCESS", None, 0)
    assert {task["state"] for task in plain["tasks"]} == {"SUCCESS"}
    assert {task["attempts"] for task in plain["tasks"]} == {1}
    assert {task["host"] for task in plain["tasks"]} == {booted.node.config.host}
    names = [task["name"] for task in plain["tasks"]]
    assert names[0] == "ValidateRequest"
    assert names[-1] == "NotifyEnd"
    assert names.index("FetchBase") < names.index("DefineDomain") < names.index("StartDomainPaused")


# -- smaller guests ---------------------------------------------------------------------------------------------------


def test_a_guest_without_networks_and_without_a_config_drive_has_none(node: Node) -> None:
    before = node.residue()
    operation = node.spawn("web1", networks=[], config_drive=False)
    domain = etree.fromstring(node.hypervisor.domain_xml(node.instance("web1").uuid))
    assert domain.findall("devices/interface") == []
    assert [disk.get("device") for disk in domain.findall("devices/disk")] == ["disk"]
    assert sorted(path.name for path in node.directory("web1").iterdir()) == [
        ".virtflow-owner",
        "console.log",
        "disk",
        "libvirt.xml",
    ]
    assert links_of(node.network.bridge) == []
    node.runner.undo(operation.id)
    assert node.left_since(before) == []


def test_a_guest_can_have_several_ports_and_choose_an_address(node: Node) -> None:
    networks = [{"network": "net0"}, {"network": "net0", "address": "10.93.7.77"}]
    node.spawn("web1", networks=networks)
    ports = node.networks.ports(instance=node.instance("web1").uuid)
    assert len({port.mac for port in ports}) == len({port.tap for port in ports}) == 2
    assert "10.93.7.77" in {port.address for port in ports}
    assert set(links_of(node.network.bridge)) == {node.network.bridge, *(port.tap for port in ports)}


def test_a_flavor_gives_the_size(node: Node) -> None:
    from virtflow.persistence.flavors import Flavor

    node.runner.services["flavors"].create(Flavor(name="m1", vcpus=2, memory_mib=48, disk_gib=1))
    node.runner.run(small("web1", flavor="m1", vcpus=None, memory_mib=None, disk_gib=None))
    instance = node.instance("web1")
    assert (instance.flavor, instance.vcpus, instance.memory_mib) == ("m1", 2, 48)
    assert node.hypervisor.state(instance.uuid) == "running"


# -- failures ---------------------------------------------------------------------------------------------------------

POINTS = [
    "ReserveQuota:after",
    "CreateInstanceEntry:after",
    "Accept:before",
    "ClaimHost:after",
    "MakeInstanceDir:after",
    "FetchBase:after",
    "CreateCowOverlay:before",
    "PlugVifs:after",
    "BuildConfigDrive:after",
    "DefineDomain:after",
    "StartDomainPaused:before",
    "StartDomainPaused:after",
    "WaitVifPlugged:after",
    "ResumeDomain:after",
    "WaitRunning:after",
    "FinishInstance:after",
    "NotifyEnd:before",
]


@pytest.mark.parametrize("point", POINTS)
def test_a_failure_leaves_nothing_and_says_what_it_was(node: Node, point: str) -> None:
    before = node.residue()
    with faults.injected(f"{point}:raise"), pytest.raises(OperationFailed) as caught:
        node.spawn("web1", user_data=b"#!/bin/sh of ours", admin_password="hunter22")
    task, when = point.split(":")
    assert caught.value.cause == f"{task}: injected fault {when} {task}"
    assert caught.value.exit_code == 4
    assert isinstance(caught.value.__cause__, faults.InjectedFault)
    assert node.left_since(before) == []
    operation = node.last()
    assert caught.value.operation.id == operation.id
    assert (operation.outcome, operation.error, operation.debts) == ("REVERTED", caught.value.cause, 0)
    assert {row["state"] for row in node.rows("ledger")} <= {"CLEARED"}
    (failed,) = [each for each in operation.tasks if each.error and each.name == task]
    assert failed.error == f"injected fault {when} {task}"


def test_what_cannot_be_reverted_is_debt_until_it_is_paid(node: Node) -> None:
    before = node.residue()
    fault = "WaitRunning:after:raise;DefineDomain.revert:before:raise:*"
    with faults.injected(fault), pytest.raises(RevertIncomplete) as caught:
        node.spawn("web1")
    assert (caught.value.exit_code, caught.value.debts) == (5, 2)
    assert "injected fault after WaitRunning" in str(caught.value)
    operation = node.last()
    assert (operation.outcome, operation.debts) == ("REVERTED_WITH_DEBT", 2)
    assert any(line.startswith("left: domain ") for line in node.left_since(before))
    assert node.runner.retry_revert(operation.id).outcome == "REVERTED"
    assert node.left_since(before) == []
    assert node.last().debts == 0


def test_a_guest_that_libvirt_refuses_is_a_failure_with_libvirts_reason(node: Node) -> None:
    before = node.residue()
    foreign = "<domain type='qemu'><name>web1</name><memory>32768</memory><os><type>hvm</type></os></domain>"
    node.hypervisor.define(foreign)
    try:
        with pytest.raises(OperationFailed, match=r"DefineDomain: cannot define domain web1: .*already exists"):
            node.spawn("web1")
        (foreigner,) = [domain for domain in node.hypervisor.domains() if domain.name == "web1"]
        assert foreigner.operation is None, "somebody else's domain stays"
    finally:
        for domain in node.hypervisor.domains():
            if domain.name == "web1":
                node.hypervisor.undefine(domain.uuid)
    assert node.left_since(before) == []
