from __future__ import annotations

from functools import partial

import pytest

from virtflow.errors import AlreadyExists, Conflict, NotFound, QuotaExceeded
from virtflow.persistence.hosts import HostRepository
from virtflow.persistence.instances import Instance, InstanceRepository
from virtflow.persistence.placement import PlacementRepository
from virtflow.persistence.server_groups import GroupMember, ServerGroupRepository


@pytest.fixture
def groups(database):
    return ServerGroupRepository(database)


@pytest.fixture
def instances(database):
    repository = InstanceRepository(database)
    for name in ("u1", "u2", "u3"):
        size = {"vcpus": 1, "memory_mib": 128, "disk_gib": 1}
        row = Instance(
            uuid=name, name=f"web-{name}", project="demo", vm_state="BUILDING", operation=f"op-{name}", **size
        )
        repository.insert(row)
    return repository


def test_a_group_is_found_by_name_and_by_id_within_its_project(groups):
    made = groups.create("web", "demo", "affinity")
    assert groups.get("web", "demo") == groups.get(made.id, "demo") == made
    with pytest.raises(NotFound, match="server group 'web' not found"):
        groups.get("web", "other")


def test_a_name_is_taken_once_per_project(groups):
    groups.create("web", "demo", "affinity")
    with pytest.raises(AlreadyExists):
        groups.create("web", "demo", "anti-affinity")
    groups.create("web", "other", "affinity")
    assert [each.project for each in groups.list()] == ["demo", "other"]
    assert [each.project for each in groups.list("other")] == ["other"]


def test_a_member_is_listed_with_its_claim(groups, instances, database):
    group = groups.create("web", "demo", "affinity")
    for name in ("u1", "u2"):
        groups.join(group.id, name, f"op-{name}", limit=10)
    placement = PlacementRepository(database)
    HostRepository(database).register("h1", 4, 1024, 10)
    claim = placement.claim("h1", "u1", "op-u1", vcpus=1, memory_mib=1, disk_gib=1)
    assert groups.members(group.id) == [
        GroupMember("u1", "web-u1", "h1", claim.generation),
        GroupMember("u2", "web-u2", None, None),
    ]
    assert groups.group_of("u1") == group
    assert groups.group_of("u3") is None


def test_the_later_of_two_claims_has_the_higher_generation(database, instances):
    placement = PlacementRepository(database)
    HostRepository(database).register("h1", 4, 1024, 10)
    first, second = (placement.claim("h1", u, "op", vcpus=1, memory_mib=1, disk_gib=1) for u in ("u1", "u2"))
    assert first.generation < second.generation
    assert placement.claim("h1", "u1", "op", vcpus=1, memory_mib=1, disk_gib=1) == first


def test_joining_twice_is_joining_once_and_leaving_ends_only_what_the_operation_began(groups, instances):
    group = groups.create("web", "demo", "affinity")
    groups.join(group.id, "u1", "op-u1", limit=1)
    groups.join(group.id, "u1", "op-u1", limit=1)
    assert not groups.leave("u1", "another")
    assert groups.leave("u1", "op-u1")
    assert not groups.leave("u1", "op-u1")
    assert groups.members(group.id) == []


def test_a_full_group_takes_nobody(groups, instances):
    group = groups.create("web", "demo", "affinity")
    groups.join(group.id, "u1", "op-u1", limit=1)
    with pytest.raises(QuotaExceeded, match="server_group_members: 1 requested, 0 of 1 left"):
        groups.join(group.id, "u2", "op-u2", limit=1)
    groups.join(group.id, "u2", "op-u2", limit=-1)


def test_a_deleted_instance_is_no_member_until_its_delete_is_undone(groups, instances):
    group = groups.create("web", "demo", "affinity")
    groups.join(group.id, "u1", "op-u1", limit=1)
    instances.mark_deleted("u1", "op-delete")
    assert groups.members(group.id) == []
    groups.join(group.id, "u2", "op-u2", limit=1)
    instances.restore("u1")
    assert [member.instance for member in groups.members(group.id)] == ["u1", "u2"]


def test_a_group_with_members_is_not_deleted(groups, instances):
    group = groups.create("web", "demo", "affinity")
    groups.join(group.id, "u1", "op-u1", limit=10)
    with pytest.raises(Conflict, match="cannot delete server group 'web': instance web-u1 is in it"):
        groups.delete("web", "demo")
    instances.mark_deleted("u1", "op-delete")
    groups.delete("web", "demo")
    with pytest.raises(NotFound):
        groups.join(group.id, "u2", "op-u2", limit=10)


def test_members_that_join_at_once_never_exceed_the_limit(groups, instances, race):
    group = groups.create("web", "demo", "affinity")
    _, raised = race([partial(groups.join, group.id, name, f"op-{name}", limit=2) for name in ("u1", "u2", "u3")])
    assert [type(error) for error in raised] == [QuotaExceeded]
    assert len(groups.members(group.id)) == 2
