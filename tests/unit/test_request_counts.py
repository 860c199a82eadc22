"""Several instances in one request."""

from __future__ import annotations

from typing import Any

import pytest

from virtflow.errors import InvalidRequest
from virtflow.requests import SpawnRequest


def spawn(**fields: Any) -> SpawnRequest:
    return SpawnRequest(**{"name": "web", "image": "debian-12", "flavor": "small", **fields})


@pytest.mark.parametrize(
    ("fields", "most"), [({}, 1), ({"min_count": 3}, 3), ({"max_count": 4}, 4), ({"min_count": 2, "max_count": 5}, 5)]
)
def test_a_request_says_how_many_instances_it_wants_at_most(fields: dict[str, Any], most: int) -> None:
    assert spawn(**fields).most == most


def test_it_becomes_requests_for_one_instance_each_with_names_and_numbers_of_their_own() -> None:
    request = spawn(min_count=2, max_count=3, meta={"role": "web"}, user_data=b"#!", server_group="spread")
    members = request.numbered(3)
    assert [member.target() for member in members] == ["instance:web-1", "instance:web-2", "instance:web-3"]
    assert [member.launch_index for member in members] == [0, 1, 2]
    assert {member.most for member in members} == {1}
    assert {(member.image, member.user_data, member.server_group) for member in members} == {
        ("debian-12", b"#!", "spread")
    }
    assert [SpawnRequest.from_plain(member.to_plain(), member.secrets()) for member in members] == members


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_count": 0}, "min_count: must be at least 1"),
        ({"min_count": 1001}, "min_count: must be at most 1000"),
        ({"max_count": 0}, "max_count: must be at least 1"),
        ({"min_count": 3, "max_count": 2}, "max_count: must be at least min_count (3)"),
        ({"min_count": "2"}, "min_count: must be a whole number"),
        ({"launch_index": -1}, "launch_index: must be at least 0"),
        ({"server_group": "../x"}, "server_group: "),
        ({"max_count": 2, "name": "w" * 62}, "name: must have at most 61 characters for 2 instances"),
        (
            {"max_count": 2, "networks": [{"network": "blue", "address": "10.0.0.9"}]},
            "networks: an address can be chosen for a single instance only",
        ),
    ],
)
def test_counts_that_cannot_be_are_refused_by_their_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        spawn(**fields)
    assert str(caught.value).startswith(message)
