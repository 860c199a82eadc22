"""Which host a spawn gets, on a real host: asked for by name or zone, refused with reasons, or the only one."""

from __future__ import annotations

import json

import pytest

from tests.functional.nodes import CommandLine, Node
from virtflow import faults
from virtflow.errors import NoValidHost, OperationFailed

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(180)]


def test_a_spawn_on_a_host_that_cannot_take_it_says_why_and_leaves_nothing(node: Node) -> None:
    hosts, own = node.runner.services["hosts"], node.config.host
    before = node.residue()
    with pytest.raises(NoValidHost, match="instance web1: host nowhere is not registered"):
        node.spawn("web1", host="nowhere")
    with pytest.raises(NoValidHost, match=f"{own}: in zone nova, not north"):
        node.spawn("web1", availability_zone="north")
    hosts.disable(own, "new fans")
    with pytest.raises(NoValidHost, match=f"{own}: disabled: new fans") as caught:
        node.spawn("web1", host=own)
    assert caught.value.refused == {own: "disabled: new fans"}
    assert node.left_since(before) == []
    hosts.enable(own)
    node.spawn("web1", host=own)


def test_another_host_without_workers_is_out_of_reach(node: Node) -> None:
    node.runner.services["hosts"].register("other", 64, 65536, 1000, worker="a worker elsewhere")
    with pytest.raises(NoValidHost, match="other: out of reach: the operation runs without workers"):
        node.spawn("web1", host="other")
    node.spawn("web1")
    assert node.instance("web1").host == node.config.host


def test_what_a_host_can_do_is_registered_with_its_first_spawn(node: Node) -> None:
    node.spawn("web1")
    host = node.runner.services["hosts"].get(node.config.host)
    assert host.capabilities["arch"] == "x86_64"
    assert {"pc", "q35"} <= set(host.capabilities["machines"])
    assert host.used() == (1, 32, 1)
    node.delete("web1")
    assert node.runner.services["hosts"].get(node.config.host).used() == (0, 0, 0)


def test_the_only_host_is_not_tried_twice_and_its_failure_is_what_is_told(node: Node) -> None:
    with faults.injected("DefineDomain:after:raise"), pytest.raises(OperationFailed, match="DefineDomain"):
        node.spawn("web1")
    (operation,) = node.runner.operations.list(limit=1)
    assert len(node.runner.services["decisions"].of_operation(operation.id)) == 1


def test_the_command_line_asks_for_a_host_and_tells_why_not(command_line: CommandLine) -> None:
    words = ("spawn", "web1", "--image", "halt", "--vcpus", "1", "--memory", "32", "--disk", "1")
    refused = command_line(*words, "--host", "nowhere")
    assert refused.code == 4
    assert refused.err.endswith("virtflow: error: no host can take instance web1: host nowhere is not registered\n")
    told = json.loads(command_line("operation", "show", "--last", "-f", "json").out)
    assert (told["outcome"], [each["chosen"] for each in told["decisions"]]) == ("REVERTED", [None])
