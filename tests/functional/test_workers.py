"""Two hosts with workers, and a third place that submits: the same on every board."""

from __future__ import annotations

import io
import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, redirect_stdout
from types import ModuleType
from typing import Any

import pytest

from tests.functional.conftest import missing
from tests.lab import etcd as lab_etcd
from tests.lab import postgres as lab_postgres
from tests.lab import redis as lab_redis
from tests.lab import zookeeper as lab_zookeeper
from tests.lab.postgres import Postgres
from tests.lab.servers import running
from virtflow import DeleteRequest
from virtflow.errors import Busy
from virtflow.testing.fleet import Fleet, await_

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(180)]

SERVERS: dict[str, tuple[ModuleType, Any]] = {
    "zookeeper": (lab_zookeeper, lab_zookeeper.ZooKeeper),
    "redis": (lab_redis, lab_redis.Redis),
    "etcd": (lab_etcd, lab_etcd.Etcd),
}


@pytest.fixture(scope="module", params=["sql", *SERVERS])
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """Two hosts, their workers, and a board of this kind."""
    if reason := missing() or lab_postgres.missing():
        pytest.skip(reason)
    settings = {}
    with ExitStack() as stack:
        if request.param in SERVERS:
            module, make = SERVERS[request.param]
            if reason := module.missing():
                pytest.skip(reason)
            settings = {"jobboard.backend": request.param, "jobboard.url": stack.enter_context(running(make)).url}
        server: Postgres = request.getfixturevalue("postgres_server")
        fleet = stack.enter_context(Fleet.up(database=server.create_database(), **settings))
        start(fleet)
        yield fleet
        assert fleet.settle() == []


def holding(fleet: Fleet) -> str:
    """The faults of all workers here: no domain is defined, and no volume made of an image, while the gate is there."""
    return ";".join(f"{task}:before:hold={fleet.gate}:*" for task in ("DefineDomain", "CreateVolumeFromImage"))


def start(fleet: Fleet) -> None:
    fleet.start(dict.fromkeys(fleet.hosts, holding(fleet)))


@contextmanager
def held(fleet: Fleet) -> Iterator[None]:
    """Whoever comes to defining a domain waits there until the block ends, or the gate is gone."""
    fleet.gate.touch()
    try:
        yield
    finally:
        fleet.gate.unlink(missing_ok=True)


def say(fleet: Fleet, *words: str) -> Any:
    """What a command in the third place answers, as JSON."""
    from virtflow.cli.main import Virtflow

    settings = fleet.settings | {"state_dir": str(fleet.root / "third"), "host": "third"}
    given = [f"--set={'' if '.' in key else 'DEFAULT.'}{key}={value}" for key, value in settings.items()]
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out):
        code = Virtflow(stdout=out, stderr=err).run([*given, *words, "-f", "json"])
    assert code == 0, err.getvalue()
    return json.loads(out.getvalue())


def test_a_spawn_from_a_third_place_lands_on_a_host_and_both_say_why(fleet: Fleet) -> None:
    size = ("--vcpus", "1", "--memory", "32", "--disk", "1", "--network", "net0")
    told = say(fleet, "spawn", "shown", "--image", "halt", *size)
    assert told["outcome"] == "SUCCESS"
    shown = say(fleet, "operation", "show", told["id"])
    chosen = shown["decisions"][0]["chosen"]
    host = say(fleet, "host", "show", chosen)
    assert [each["verdict"] for each in host["decisions"] if each["operation"] == told["id"]] == ["chosen"]
    assert "shown" in {instance["name"] for instance in host["instances"]}
    assert fleet.hosts[chosen].guests().keys() >= {"shown"}
    assert {segment["host"] for segment in shown["segments"]} <= {chosen}
    assert told["id"] in {each["id"] for each in say(fleet, "operation", "list", "--host", chosen, "--since", "1h")}
    assert say(fleet, "operation", "watch", told["id"])["outcome"] == "SUCCESS"
    assert say(fleet, "delete", "shown")["outcome"] == "SUCCESS"
    assert "shown" not in fleet.hosts[chosen].guests()


def test_an_undo_from_a_third_place_takes_the_guest_away_where_it_is(fleet: Fleet) -> None:
    spawned = fleet.wait(fleet.client.submit(fleet.small("undone")))
    assert say(fleet, "operation", "undo", spawned.id)["outcome"] == "UNDONE"
    assert not any("undone" in host.guests() for host in fleet.hosts.values())


def test_a_failure_on_one_host_is_made_good_on_the_other(fleet: Fleet) -> None:
    h1 = fleet.hosts["h1"]
    h1.stop()
    h1.start(f"DefineDomain:before:raise;{holding(fleet)}")
    fleet.await_registered(h1)
    fleet.client.core.hosts.disable("h2")
    asked = fleet.client.submit(fleet.small("moved"))
    fleet.wait_for_decision(asked)
    fleet.client.core.hosts.enable("h2")
    assert fleet.wait(asked).outcome == "SUCCESS"
    shown = say(fleet, "operation", "show", asked.id)
    assert [each["chosen"] for each in shown["decisions"]] == ["h1", "h2"]
    assert "injected fault" in shown["decisions"][1]["refused"]["h1"][1]
    assert fleet.settle() == []


def test_what_waits_for_its_target_is_done_in_turn_and_what_does_not_is_refused(fleet: Fleet) -> None:
    with held(fleet):
        spawned = fleet.client.submit(fleet.small("queued"))
        with pytest.raises(Busy):
            fleet.client.submit(DeleteRequest(name="queued"))
        deleted = fleet.client.submit(DeleteRequest(name="queued"), queue=True)
        fleet.wait_for_task(spawned, "DefineDomain")
    assert fleet.wait(spawned).outcome == "SUCCESS"
    assert fleet.wait(deleted).outcome == "SUCCESS"


def test_a_cancel_from_a_third_place_stops_what_another_host_is_at(fleet: Fleet) -> None:
    with held(fleet), ThreadPoolExecutor(1) as threads:
        asked = fleet.client.submit(fleet.small("cancelled"))
        fleet.wait_for_task(asked, "DefineDomain")
        threads.submit(let_go_on, fleet, asked.id)
        assert say(fleet, "operation", "cancel", asked.id)["outcome"] == "CANCELLED"


def test_a_cancel_from_a_third_place_stops_what_a_host_does_for_the_volume_to_boot_from(fleet: Fleet) -> None:
    with held(fleet), ThreadPoolExecutor(1) as threads:
        asked = fleet.client.submit(fleet.small("bootless", disk_gib=None, boot_volume_gib=1))
        await_(lambda: bool(fleet.client.operations.list(kind="volume-create")), "the operation that makes the volume")
        (making,) = fleet.client.operations.list(kind="volume-create")
        fleet.wait_for_task(making, "CreateVolumeFromImage")
        threads.submit(let_go_on, fleet, making.id)
        assert say(fleet, "operation", "cancel", asked.id)["outcome"] == "CANCELLED"
    made = fleet.client.operations.get(making.id)
    assert (made.parent, made.outcome) == (asked.id, "CANCELLED")
    assert "FinishVolume" not in [task.name for task in made.tasks if task.attempts]


def let_go_on(fleet: Fleet, operation: str) -> None:
    """Once the operation is asked to stop, and all workers have had time to see it."""
    await_(lambda: bool(fleet.client.operations.get(operation).cancel_requested), "the request to cancel")
    time.sleep(2)  # workers look for such requests twice a second
    fleet.gate.unlink()


def test_a_worker_that_is_told_to_end_finishes_its_tasks_and_another_goes_on(fleet: Fleet) -> None:
    with held(fleet):
        asked = fleet.client.submit(fleet.small("drained"))
        fleet.wait_for_task(asked, "DefineDomain")
        (here,) = [host for host in fleet.hosts.values() if fleet.works_on(host, asked)]
        here.signal(signal.SIGTERM)
    await_(lambda: not here.alive, "the end of the worker that drains", log=here.log)
    here.start(holding(fleet))
    assert fleet.wait(asked).outcome == "SUCCESS"


def test_a_worker_that_is_told_to_reload_comes_back_as_the_same_process(fleet: Fleet) -> None:
    h1 = fleet.hosts["h1"]
    text = h1.file.read_text()
    h1.file.write_text(text.replace("[worker]\n", "[worker]\ncpu_ratio = 7\n"))
    h1.signal(signal.SIGHUP)
    await_(lambda: (fleet.record("h1") or pytest.fail("no host")).cpu_ratio == 7, "the new ratio", log=h1.log)
    assert h1.alive
    assert fleet.wait(fleet.client.submit(fleet.small("reloaded"))).outcome == "SUCCESS"


def test_a_job_that_is_set_aside_waits_until_it_may_be_taken_again(fleet: Fleet) -> None:
    for host in fleet.hosts.values():
        host.stop()
    asked = fleet.client.submit(fleet.small("parked"))
    (job,) = say(fleet, "job", "list", "--topic", "operations")
    assert (job["name"], job["state"]) == (asked.id, "READY")
    assert fleet.board.set_aside(job["name"], "test")
    assert say(fleet, "job", "show", asked.id[:8])["state"] == "PARKED"
    assert not fleet.board.set_aside(job["name"], "test")
    start(fleet)
    assert fleet.client.operations.get(asked.id).state == "ACCEPTED"
    assert fleet.board.unpark(job["name"])
    assert fleet.wait(asked).outcome == "SUCCESS"
