from __future__ import annotations

from functools import partial

import pytest

from virtflow.errors import AlreadyExists, Conflict, NotFound
from virtflow.persistence.instances import Instance, InstanceRepository

OP, OTHER = "operation-1", "operation-2"


def instance(uuid="u1", name="web1", **changes):
    values = {
        "uuid": uuid,
        "name": name,
        "project": "demo",
        "vm_state": "BUILDING",
        "vcpus": 1,
        "memory_mib": 128,
        "disk_gib": 1,
        "operation": OP,
        "meta": {"role": "web"},
    }
    return Instance(**values | changes)


@pytest.fixture
def instances(database):
    return InstanceRepository(database)


def test_what_is_inserted_is_what_is_read(instances):
    instances.insert(instance())
    assert instances.get("u1") == instance(created_at=instances.get("u1").created_at)


def test_the_same_operation_may_insert_again_and_keeps_the_time_of_creation(instances):
    instances.insert(instance(created_at=1))
    instances.insert(instance(created_at=2, vm_state="ERROR"))
    found = instances.get("u1")
    assert (found.created_at, found.vm_state) == (1, "ERROR")


def test_another_operation_cannot_insert_the_same_uuid(instances):
    instances.insert(instance())
    with pytest.raises(AlreadyExists):
        instances.insert(instance(operation=OTHER, vm_state="ERROR"))
    assert instances.get("u1").vm_state == "BUILDING"


def test_a_live_name_cannot_be_taken_twice_in_a_project_but_in_another(instances):
    instances.insert(instance())
    with pytest.raises(AlreadyExists, match="instance 'web1' exists already"):
        instances.insert(instance("u2", operation=OTHER))
    instances.insert(instance("u3", project="other"))
    assert [each.uuid for each in instances.list("demo")] == ["u1"]


def test_of_eight_that_want_one_name_one_gets_it(instances, race):
    attempts = [partial(instances.insert, instance(f"u{n}", operation=f"op{n}")) for n in range(8)]
    succeeded, raised = race(attempts)
    assert len(succeeded) == 1
    assert [type(error) for error in raised] == [AlreadyExists] * 7
    assert len(instances.list()) == 1


def test_an_instance_is_found_by_name_or_uuid_within_its_project_only(instances):
    instances.insert(instance())
    assert instances.find("web1", "demo") == instances.find("u1", "demo")
    for name in ("web1", "u1"):
        with pytest.raises(NotFound, match="not found"):
            instances.find(name, "other")


def test_the_uuid_wins_over_an_instance_that_bears_it_as_its_name(instances):
    instances.insert(instance("u1", "web1"))
    instances.insert(instance("u2", "u1"))
    assert instances.find("u1", "demo").uuid == "u1"


def test_compare_and_set_writes_only_what_is_still_as_expected(instances):
    instances.insert(instance())
    assert instances.compare_and_set("u1", {"task_state": None, "vm_state": "BUILDING"}, {"task_state": "DELETING"})
    assert not instances.compare_and_set("u1", {"task_state": None}, {"task_state": "RESIZING"})
    assert instances.compare_and_set("u1", {"task_state": (None, "DELETING")}, {"task_state": "DELETING", "meta": {}})
    assert not instances.compare_and_set("absent", {}, {"task_state": None})
    assert (instances.get("u1").task_state, instances.get("u1").meta) == ("DELETING", {})


def test_of_eight_that_compare_and_set_one_wins(instances, race):
    instances.insert(instance())
    attempts = [partial(instances.compare_and_set, "u1", {"host": None}, {"host": f"h{n}"}) for n in range(8)]
    results, raised = race(attempts)
    assert not raised
    assert sorted(results) == [False] * 7 + [True]


def test_compare_and_set_refuses_to_change_an_identity(instances):
    with pytest.raises(ValueError, match="not changeable: name, uuid"):
        instances.compare_and_set("u1", {}, {"uuid": "u2", "name": "x", "host": "h"})


def test_a_deleted_instance_frees_its_name_and_is_found_by_uuid_when_asked_for(instances):
    instances.insert(instance())
    instances.mark_deleted("u1", OTHER)
    instances.insert(instance("u2"))
    assert instances.find("web1", "demo").uuid == "u2"
    with pytest.raises(NotFound):
        instances.find("u1", "demo")
    assert instances.find("u1", "demo", include_deleted=True).deleted_by == OTHER
    assert [each.uuid for each in instances.list(include_deleted=True)] == ["u1", "u2"]


def test_deleting_twice_by_one_operation_is_fine_and_by_another_is_not(instances):
    instances.insert(instance())
    instances.mark_deleted("u1", OTHER)
    when = instances.get("u1").deleted_at
    instances.mark_deleted("u1", OTHER)
    assert instances.get("u1").deleted_at == when
    with pytest.raises(Conflict, match="operation operation-2 has deleted it"):
        instances.mark_deleted("u1", OP)
    with pytest.raises(NotFound):
        instances.mark_deleted("absent", OP)


def test_a_restored_instance_is_as_it_was(instances):
    instances.insert(instance())
    before = instances.get("u1")
    instances.mark_deleted("u1", OTHER)
    instances.restore("u1")
    instances.restore("u1")
    assert instances.get("u1") == before
    assert instances.find("web1", "demo") == before


def test_an_instance_whose_name_was_taken_meanwhile_cannot_be_restored(instances):
    instances.insert(instance())
    instances.mark_deleted("u1", OTHER)
    instances.insert(instance("u2"))
    with pytest.raises(AlreadyExists):
        instances.restore("u1")
    assert instances.get("u1").deleted_by == OTHER


def test_only_the_operation_that_created_an_instance_removes_its_row(instances):
    instances.insert(instance())
    assert not instances.remove("u1", OTHER)
    assert instances.remove("u1", OP)
    assert not instances.remove("u1", OP)
    instances.insert(instance("u2"))
