"""What a resize asks for and gets, and which hosts will not do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from taskflow import retry

from virtflow.errors import InvalidRequest
from virtflow.tasks.resize import NextDestination
from virtflow.tasks.resize_confirm import base_names
from virtflow.tasks.resize_disks import is_merged
from virtflow.tasks.resize_request import largest, resized

SHA1 = "a" * 40
OLD = {
    "vcpus": 1,
    "memory_mib": 64,
    "disk_gib": 10,
    "flavor": "small",
    "image": {"id": "image-1", "min_ram": 32},
    "snapshot_base": None,
    "ephemerals": [{"size_gib": 2, "filesystem": "ext4", "label": "ephemeral0"}],
    "swap_mib": 512,
    "claimed_disk_gib": 13,
    "zone": None,
    "host": "h1",
    "host_wanted": {"capabilities:gpu": "true"},
}


def flavor(**properties: str) -> Any:
    return SimpleNamespace(name="large", vcpus=4, memory_mib=256, disk_gib=20, properties=properties)


def request(**fields: Any) -> dict[str, Any]:
    return {"name": "web1", "flavor": None, "vcpus": None, "memory_mib": None, "disk_gib": None, "host": None, **fields}


def test_a_flavor_gives_all_sizes_and_what_it_says_of_hosts() -> None:
    new = resized(OLD, request(flavor="large"), flavor(**{"capabilities:ssd": "true"}))
    assert (new["flavor"], new["vcpus"], new["memory_mib"], new["disk_gib"]) == ("large", 4, 256, 20)
    assert new["host_wanted"] == {"capabilities:ssd": "true"}
    assert new["claimed_disk_gib"] == 20 + 2 + 1
    assert new["host"] is None, "where it is now is no wish for where it will be"


def test_sizes_that_are_not_named_stay_and_it_is_of_no_flavor_then() -> None:
    new = resized(OLD, request(memory_mib=128), None)
    assert (new["flavor"], new["vcpus"], new["memory_mib"], new["disk_gib"]) == (None, 1, 128, 10)
    assert new["host_wanted"] == OLD["host_wanted"]


def test_a_migration_changes_nothing_but_the_host() -> None:
    new = resized(OLD, {"name": "web1", "host": "h2"}, None)
    assert new == {**OLD, "host": "h2"}


@pytest.mark.parametrize(
    ("asked", "of", "field"),
    [
        ({"disk_gib": 9}, None, "disk"),
        ({"memory_mib": 16}, None, "memory"),
        ({"vcpus": 1, "memory_mib": 64, "disk_gib": 10, "flavor": "small"}, None, None),
        ({"flavor": "large"}, flavor(ephemeral_gib="1"), "ephemeral_gib[0]"),
        ({"flavor": "large"}, flavor(ephemeral_gib="2,2"), "flavor"),
    ],
)
def test_disks_never_shrink_or_vanish(asked: dict[str, Any], of: Any, field: str | None) -> None:
    if field is None:
        with pytest.raises(InvalidRequest, match="has this size already"):
            resized({**OLD, "flavor": None}, request(**asked), of)
        return
    with pytest.raises(InvalidRequest) as refused:
        resized(OLD, request(**asked), of)
    assert refused.value.fields["field"] == field


def test_an_instance_that_boots_from_a_volume_gets_no_disk_of_its_own() -> None:
    old = {**OLD, "disk_gib": 0, "claimed_disk_gib": 3, "volumes": [{"id": "v", "boot": True}]}
    new = resized(old, request(flavor="large"), flavor())
    assert (new["disk_gib"], new["claimed_disk_gib"], new["vcpus"]) == (0, 3, 4)
    with pytest.raises(InvalidRequest, match="boots from a volume: extend that"):
        resized(old, request(disk_gib=5), None)


def test_ephemeral_disks_grow_and_swap_has_any_size() -> None:
    new = resized(OLD, request(flavor="large"), flavor(ephemeral_gib="3", swap_mib="8"))
    assert new["ephemerals"] == [{"size_gib": 3, "filesystem": "ext4", "label": "ephemeral0"}]
    assert new["swap_mib"] == 8
    assert new["claimed_disk_gib"] == 20 + 3 + 1
    assert OLD["ephemerals"] == [{"size_gib": 2, "filesystem": "ext4", "label": "ephemeral0"}]


def test_the_larger_of_both_is_held_of_each_resource() -> None:
    assert largest({"vcpus": 4, "disk_gib": 1}, {"vcpus": 2, "disk_gib": 3}) == {"vcpus": 4, "disk_gib": 3}


def test_what_stands_on_no_image_goes_to_another_host_put_together() -> None:
    assert not is_merged("disk", f"{SHA1}_10", "overlay")
    assert is_merged("disk", f"{SHA1}_10", "merged")
    assert is_merged("disk.local", "ephemeral_1_ext4_ephemeral0", "overlay"), "another host has formatted another one"
    assert not is_merged("disk.swap", "swap_512", "merged"), "swap is made anew"
    assert not is_merged("disk", None, "merged"), "it is whole already"


def test_only_the_bases_of_the_old_size_are_given_up_on_the_same_host() -> None:
    gone = base_names(OLD) - base_names({**OLD, "disk_gib": 20})
    assert {name.rpartition("_")[2] for name in gone} == {"10"}


def test_a_host_that_is_excluded_is_never_tried_nor_counted_as_another() -> None:
    asked: list[dict[str, str]] = []

    def other_host_fits(_spec: Any, _uuid: str, tried: dict[str, str], _only: str | None) -> bool:
        asked.append(tried)
        return False

    choice = SimpleNamespace(
        limits=SimpleNamespace(max_attempts=3),
        chosen_before=lambda _operation: [("h2", [])],
        other_host_fits=other_host_fits,
    )
    controller, excluded = NextDestination(), {"h1": "it is there"}
    first = controller.execute(retry.History([]), operation="o", host_choice=choice, excluded=excluded)
    assert first["tried"] == excluded
    arguments = {"spec": OLD, "instance_uuid": "i", "operation": "o", "segments": SimpleNamespace(only_host=None)}
    history = retry.History([(first, {})])
    assert controller.on_failure(history, host_choice=choice, excluded=excluded, **arguments) == retry.REVERT
    assert asked[0].keys() == {"h1", "h2"}
