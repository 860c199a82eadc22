"""Several instances in one request, with real guests."""

from __future__ import annotations

import pytest

from tests.functional.nodes import CommandLine, Node, small
from virtflow import faults
from virtflow.errors import AlreadyExists, InvalidRequest, NotFound, QuotaExceeded
from virtflow.persistence.operations import Operation

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(180)]


def names(operations: list[Operation]) -> list[str]:
    return [operation.target for operation in operations]


def test_each_instance_of_a_group_is_an_operation_of_its_own(node: Node) -> None:
    before = node.residue()
    operations = node.runner.run_group(small("web", min_count=3))
    assert names(operations) == ["instance:web-1", "instance:web-2", "instance:web-3"]
    assert {operation.outcome for operation in operations} == {"SUCCESS"}
    (group,) = {operation.group for operation in operations}
    assert [each.id for each in node.runner.operations.list(group=group)] == [each.id for each in operations][::-1]
    assert {node.state_of(f"web-{number}") for number in (1, 2, 3)} == {"running"}
    for operation in operations:
        node.runner.undo(operation.id)
    assert node.left_since(before) == []


def test_the_quota_decides_how_many_there_are_between_the_least_and_the_most(node: Node) -> None:
    node.runner.services["quotas"].set_limit(node.config.project, "vcpus", 2)
    operations = node.runner.submit_group(small("web", min_count=1, max_count=5))
    assert names(operations) == ["instance:web-1", "instance:web-2"]
    assert {operation.state for operation in operations} == {"ACCEPTED"}
    for operation in operations:
        node.runner.cancel(operation.id)


def test_a_group_for_which_the_quota_is_too_small_is_refused_and_nothing_is_made(node: Node) -> None:
    node.runner.services["quotas"].set_limit(node.config.project, "vcpus", 2)
    before = node.residue()
    with pytest.raises(QuotaExceeded, match="vcpus: 3 requested, 2 of 2 left"):
        node.runner.run_group(small("web", min_count=3, max_count=5))
    assert node.rows("operations") == []
    assert node.left_since(before) == []


def test_a_group_of_which_one_is_refused_is_refused_as_a_whole(node: Node) -> None:
    node.spawn("web-3")
    before = node.residue()
    with pytest.raises(AlreadyExists, match="instance 'web-3' exists already"):
        node.runner.run_group(small("web", min_count=4))
    assert node.left_since(before) == []
    assert [row["name"] for row in node.rows("instances")] == ["web-3"]


def test_a_member_that_fails_leaves_the_others_alone(node: Node) -> None:
    with faults.injected("DefineDomain:after:raise"):
        operations = node.runner.run_group(small("web", min_count=2))
    assert sorted(str(operation.outcome) for operation in operations) == ["REVERTED", "SUCCESS"]
    assert len(node.rows("instances")) == 1


def test_a_group_that_was_only_accepted_is_gone_on_with(node: Node) -> None:
    accepted = node.runner.submit_group(small("web", min_count=2))
    group = accepted[0].group
    assert group is not None
    operations = node.runner.resume_group(group)
    assert {operation.outcome for operation in operations} == {"SUCCESS"}
    assert names(operations) == names(accepted)
    with pytest.raises(NotFound, match="group 'none' not found"):
        node.runner.resume_group("none")


def test_a_request_for_several_is_not_run_as_one(node: Node) -> None:
    with pytest.raises(InvalidRequest, match="max_count: a request for several instances is run as a group"):
        node.spawn("web", min_count=2)
    assert node.rows("instances") == []


def test_a_group_from_the_command_line(command_line: CommandLine) -> None:
    answer = command_line.spawn("web", "--count", "2-3", "-f", "json")
    assert answer.code == 0, answer.err
    shown = answer.json
    assert [each["target"] for each in shown["operations"]] == ["instance:web-1", "instance:web-2", "instance:web-3"]
    assert {each["outcome"] for each in shown["operations"]} == {"SUCCESS"}
    listed = command_line("operation", "list", "--group", shown["group"], "-f", "json").json
    assert {each["group"] for each in listed} == {shown["group"]}
    assert len(listed) == shown["count"] == 3
    refused = command_line.spawn("db", "--count", "30")
    assert refused.code == 4
    assert "quota exceeded for instances: 30 requested" in refused.err
