"""What an instance that is moved or resized holds already is no room that somebody else has taken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from virtflow.errors import PolicyViolated
from virtflow.persistence import schema
from virtflow.persistence.database import Database
from virtflow.persistence.decisions import DecisionRepository
from virtflow.persistence.hosts import HostRepository
from virtflow.persistence.placement import PlacementRepository
from virtflow.persistence.server_groups import GroupMember
from virtflow.scheduler.plugins import load_scheduler
from virtflow.tasks.host_choice import ChoiceLimits, HostChoice
from virtflow.tasks.server_groups import CheckDestinationPolicy

GROUP = {"id": "group-1", "name": "apart", "policy": "anti-affinity"}
FIRST = {"attempt": 1, "tried": {}, "alternates": []}


def spec(vcpus: int, **fields: Any) -> dict[str, Any]:
    plain = {"vcpus": vcpus, "memory_mib": 128, "claimed_disk_gib": 1, "zone": None, "host": None, "host_wanted": {}}
    return {**plain, "server_group": None, "image": {"properties": {}}, **fields}


@pytest.fixture
def choice(tmp_path: Path) -> Iterator[HostChoice]:
    database = Database(f"sqlite:///{tmp_path / 'v.db'}")
    schema.upgrade(database)
    hosts, placement = HostRepository(database), PlacementRepository(database)
    for name in ("h1", "h2"):
        hosts.register(name, 4, 1024, 10, worker=f"worker of {name}")
    placement.claim("h1", "moved", "spawn", vcpus=3, memory_mib=128, disk_gib=1)
    placement.claim("h2", "ballast", "none", vcpus=2, memory_mib=0, disk_gib=0)
    scheduler = load_scheduler(("status", "retry", "server-group", "capacity"), ("capacity",), {})
    decisions, settings = DecisionRepository(database), SimpleNamespace(host="h0")
    yield HostChoice(scheduler, hosts, decisions, None, settings, None, ChoiceLimits(), placement)
    database.close()


def test_an_instance_fits_again_where_its_own_claim_is_all_that_is_in_its_way(choice: HostChoice) -> None:
    assert choice.choose(spec(4), "moved", "op", FIRST).chosen == "h1"
    refused = choice.choose(spec(4), "somebody else", "op", FIRST)
    assert (refused.chosen, refused.refused["h1"]) == (None, "needs 4 vcpus, 1 left")
    assert choice.choose(spec(5), "moved", "op", FIRST).chosen is None
    assert choice.other_host_fits(spec(4), "moved", {"h2": "it failed"})
    assert choice.choose(spec(4), "moved", "op", {**FIRST, "attempt": 2, "alternates": ["h1"]}).chosen == "h1"


def members(*placed: tuple[str, str, int]) -> Any:
    return SimpleNamespace(members=lambda _group: [GroupMember(name, name, host, at) for name, host, at in placed])


def test_a_destination_must_suit_the_group_as_it_is_once_it_is_claimed() -> None:
    task = CheckDestinationPolicy()
    of = {"instance_uuid": "vm1", "source_host": "h1"}
    free = members(("vm1", "h1", 1), ("vm1", "h2", 5), ("vm2", "h3", 1))
    task.execute(spec=spec(1, server_group=GROUP), destination="h2", server_groups=free, **of)
    taken = members(("vm1", "h1", 1), ("vm1", "h2", 5), ("vm2", "h2", 4))
    with pytest.raises(PolicyViolated):
        task.execute(spec=spec(1, server_group=GROUP), destination="h2", server_groups=taken, **of)
    task.execute(spec=spec(1, server_group=GROUP), destination="h1", server_groups=taken, **of)
    task.execute(spec=spec(1), destination="h2", server_groups=None, **of)
