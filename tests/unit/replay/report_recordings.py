"""Recordings made by hand for the report's tests: each tells one story, and every time in it is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from virtflow.replay.recording import (
    FORMAT,
    Event,
    GraphNode,
    LedgerEntry,
    RecordedAtom,
    RecordedClaim,
    RecordedFlow,
    RecordedGraph,
    RecordedOperation,
    Recording,
)

START = 1_795_240_800_000_000
PARENT = "9d3e6a50-30a1-4c0e-8a54-27f1c40e8d11"
SEGMENTS = ("5be0b6a2-6b9b-5a8e-9d0c-6f1c40e8d001", "5be0b6a2-6b9b-5a8e-9d0c-6f1c40e8d002")
MS = 1000

DOMAIN = """<domain type='qemu'>
  <name>web1</name>
  <uuid>0f6a1b52-91f6-5b4b-a6a1-9f4ad1b7c001</uuid>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>2</vcpu>
  <os>
    <type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type>
  </os>
  <devices>
    <disk type='file' device='disk'>
      <source file='/var/lib/virtflow/instances/0f6a1b52/disk'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='ethernet'>
      <mac address='52:54:00:3c:11:{mac}'/>
      <target dev='vf0f6a1b52911' managed='no'/>
    </interface>
  </devices>
</domain>"""

PARENT_TASKS = (
    *("ValidateRequest", "ReserveQuota", "CreateInstanceEntry", "NotifyStart", "StashSecrets", "Accept"),
    *("ClaimHost", "SpawnOnHost", "CommitQuota", "FinishInstance", "PurgeSecrets", "NotifyEnd"),
)
HOST_TASKS = (
    *("ResolveHardware", "MakeInstanceDir", "FetchBase", "SizeBase", "CreateCowOverlay", "AllocatePorts", "PlugVifs"),
    *("BuildConfigDrive", "BuildDomainXml", "DefineDomain", "StartDomain", "WaitRunning"),
)
HOST_EDGES = (
    *(("ResolveHardware", "MakeInstanceDir"), ("MakeInstanceDir", "FetchBase"), ("FetchBase", "SizeBase")),
    *(("SizeBase", "CreateCowOverlay"), ("ResolveHardware", "AllocatePorts"), ("AllocatePorts", "PlugVifs")),
    *(("AllocatePorts", "BuildConfigDrive"), ("MakeInstanceDir", "BuildConfigDrive"), ("PlugVifs", "BuildDomainXml")),
    *(("CreateCowOverlay", "BuildDomainXml"), ("BuildConfigDrive", "BuildDomainXml")),
    *(("BuildDomainXml", "DefineDomain"), ("DefineDomain", "StartDomain"), ("StartDomain", "WaitRunning")),
)
PROVIDES = {
    "ValidateRequest": "spec",
    "MakeInstanceDir": "instance_dir",
    "FetchBase": "base",
    "SizeBase": "base_path",
    "CreateCowOverlay": "root_disk",
    "AllocatePorts": "vifs",
    "PlugVifs": "plugged",
    "BuildConfigDrive": "config_drive",
    "BuildDomainXml": "domain_xml",
    "DefineDomain": "domain",
}
REQUIRES = {
    "MakeInstanceDir": ("instance_uuid",),
    "FetchBase": ("spec", "image_cache"),
    "SizeBase": ("base", "spec"),
    "CreateCowOverlay": ("instance_dir", "base_path", "spec"),
    "AllocatePorts": ("spec", "instance_uuid"),
    "PlugVifs": ("vifs",),
    "BuildConfigDrive": ("instance_dir", "vifs", "spec"),
    "BuildDomainXml": ("root_disk", "vifs", "config_drive", "plugged", "spec"),
    "DefineDomain": ("domain_xml", "hypervisor"),
    "StartDomain": ("domain", "instance_uuid", "hypervisor"),
    "WaitRunning": ("domain",),
}


def graph(tasks: Sequence[str], edges: Sequence[tuple[str, str]], retries: Sequence[str] = ()) -> RecordedGraph:
    provider = {PROVIDES[name]: name for name in tasks if name in PROVIDES}
    nodes = tuple(
        GraphNode(
            name,
            "retry" if name in retries else "task",
            "1.0",
            {value: value for value in REQUIRES.get(name, ())},
            {},
            {PROVIDES[name]: None} if name in PROVIDES else {},
            {value: (provider[value],) for value in REQUIRES.get(name, ()) if value in provider},
        )
        for name in tasks
    )
    return RecordedGraph(nodes, tuple(edges))


def chain(tasks: Sequence[str]) -> list[tuple[str, str]]:
    return list(pairwise(tasks))


def failure(text: str, kind: str = "virtflow.errors.HypervisorError") -> dict[str, Any]:
    trace = (
        f'Traceback (most recent call last):\n  File "virtflow/tasks/domain.py", line 88, in execute\n{kind}: {text}\n'
    )
    return {"failure": {"exception_str": text, "exc_type_names": [kind], "traceback_str": trace, "exc_args": [text]}}


@dataclass
class Story:
    """Writes the journal: each call is an event at the story's clock, which the callers push on."""

    clock: int = 0
    epoch: int = 1
    host: str = "kvm-01"
    events: dict[str, list[Event]] = field(default_factory=dict)

    def say(self, flow: str, atom: str | None, event: str, data: Any = None, attempt: int = 1, after: int = 0) -> None:
        self.clock += after
        told = self.events.setdefault(flow, [])
        at = START + self.clock
        told.append(Event(at, flow, len(told), atom, event, attempt if atom else 0, self.epoch, self.host, data))

    def begin(self, flow: str, pid: int = 4711) -> None:
        pid = pid if self.host == "kvm-01" else 2290
        self.say(flow, None, "RUNNING", {"code": "0.2.0", "pid": pid, "undoing": False, "cancelled": False}, after=400)

    def do(self, flow: str, atom: str, took: int, result: Any = None, attempt: int = 1) -> None:
        self.say(flow, atom, "RUNNING", attempt=attempt, after=300)
        self.say(flow, atom, "SUCCESS", None if result is None else {"result": result}, attempt, after=took)

    def fail(self, flow: str, atom: str, took: int, text: str, attempt: int = 1) -> None:
        self.say(flow, atom, "RUNNING", attempt=attempt, after=300)
        self.say(flow, atom, "FAILURE", failure(text), attempt, after=took)

    def undo(self, flow: str, atom: str, took: int, debt: str | None = None, attempt: int = 1) -> None:
        self.say(flow, atom, "REVERTING", attempt=attempt, after=250)
        self.say(flow, atom, "REVERTED", None if debt is None else {"debt": debt}, attempt, after=took)

    def flow(self, uuid: str, kind: str, drawn: RecordedGraph, inputs: Mapping[str, Any], state: str) -> RecordedFlow:
        told = tuple(self.events.get(uuid, ()))
        latest = {event.atom: event.event for event in told if event.atom}
        atoms = tuple(
            RecordedAtom(node.name, node.kind, node.version, latest.get(node.name, "PENDING"), "EXECUTE")
            for node in drawn.nodes
        )
        host = told[0].host if told else self.host
        return RecordedFlow(uuid, kind, 1, host, state, told[0].at if told else START, inputs, drawn, atoms, told)


def recording(story: Story, flows: Sequence[RecordedFlow], outcome: str | None, error: str | None = None) -> Recording:
    operation = RecordedOperation(
        id=PARENT,
        number=41,
        kind="spawn",
        version=1,
        target="instance:web1",
        project="default",
        state="FINISHED" if outcome else "RUNNING",
        outcome=outcome,
        error=error,
        request={"name": "web1", "image": "debian-13", "flavor": "m1.small", "networks": [{"network": "net0"}]},
        cancel_requested=False,
        created_at=START,
        started_at=START + 400,
        finished_at=START + story.clock + 500 if outcome else None,
    )
    return Recording(
        format=FORMAT,
        virtflow_version="0.2.0",
        exported_at=START + 3_600_000_000,
        operation=operation,
        flows=tuple(flows),
        claims=(RecordedClaim(PARENT, story.epoch, None, START + story.clock),),
        redacted=True,
    )


SPEC = {
    "name": "web1",
    "vcpus": 2,
    "memory_mib": 2048,
    "disk_gib": 20,
    "image": {"id": "5f1c", "name": "debian-13", "disk_format": "qcow2", "min_disk": 2},
    "networks": [{"network": "net0", "cidr": "10.0.4.0/24"}],
}
TOOK = {
    "FetchBase": 2_840 * MS,
    "SizeBase": 210 * MS,
    "BuildConfigDrive": 38 * MS,
    "DefineDomain": 61 * MS,
    "StartDomain": 640 * MS,
    "WaitRunning": 420 * MS,
}


def results(mac: str = "7a", memory: int = 2048) -> dict[str, Any]:
    return {
        "ValidateRequest": SPEC,
        "MakeInstanceDir": "/var/lib/virtflow/instances/0f6a1b52",
        "FetchBase": {"path": "/var/lib/virtflow/instances/_base/9c1e", "virtual_size": 2147483648, "format": "raw"},
        "SizeBase": "/var/lib/virtflow/instances/_base/9c1e_20",
        "CreateCowOverlay": {"path": "/var/lib/virtflow/instances/0f6a1b52/disk", "format": "qcow2"},
        "AllocatePorts": [{"mac": f"52:54:00:3c:11:{mac}", "address": "10.0.4.17", "tap": "vf0f6a1b52911"}],
        "PlugVifs": ["vf0f6a1b52911"],
        "BuildConfigDrive": {"path": "/var/lib/virtflow/instances/0f6a1b52/disk.config", "bytes": 393216},
        "BuildDomainXml": DOMAIN.format(mac=mac, memory=memory),
        "DefineDomain": {"uuid": "0f6a1b52-91f6-5b4b-a6a1-9f4ad1b7c001", "name": "web1"},
    }


def entry(flow: str, task: str, kind: str, identity: str, state: str, error: str | None = None) -> LedgerEntry:
    return LedgerEntry(flow, task, kind, identity, "kvm-01", state, {}, error, 1, START, START + 5000)


def _ledger(flow: str, state: str) -> tuple[LedgerEntry, ...]:
    return (
        entry(PARENT, "CreateInstanceEntry", "row", "instances/0f6a1b52", state),
        entry(flow, "MakeInstanceDir", "directory", "/var/lib/virtflow/instances/0f6a1b52", state),
        entry(flow, "CreateCowOverlay", "file", "/var/lib/virtflow/instances/0f6a1b52/disk", state),
        entry(flow, "PlugVifs", "tap", "vf0f6a1b52911", state),
        entry(flow, "DefineDomain", "domain", "0f6a1b52-91f6-5b4b-a6a1-9f4ad1b7c001", state),
    )


def _parent(story: Story, upto: str) -> None:
    made = results()
    story.begin(PARENT)
    for name in PARENT_TASKS[: PARENT_TASKS.index(upto)]:
        story.do(PARENT, name, 3 * MS, made.get(name))


def _host(story: Story, flow: str, upto: str | None = None, **given: Any) -> None:
    """The segment's tasks, disks and network side by side."""
    made = results(**given)
    story.begin(flow)
    aside = ("AllocatePorts", "PlugVifs", "BuildConfigDrive")
    for name in HOST_TASKS[: None if upto is None else HOST_TASKS.index(upto)]:
        if name in aside:
            continue
        if name == "FetchBase":
            story.say(flow, name, "RUNNING", after=300)
            for other in aside:
                story.do(flow, other, TOOK.get(other, 5 * MS), made.get(other))
            story.say(flow, name, "SUCCESS", {"result": made[name]}, after=TOOK[name])
        else:
            story.do(flow, name, TOOK.get(name, 6 * MS), made.get(name))


def _flows(story: Story, parent_state: str, *segment_states: str) -> list[RecordedFlow]:
    parent = graph(PARENT_TASKS, chain(PARENT_TASKS))
    flows = [
        story.flow(PARENT, "spawn", parent, {"request": {"name": "web1"}, "instance_uuid": "0f6a1b52"}, parent_state)
    ]
    inputs = {"spec": SPEC, "instance_uuid": "0f6a1b52", "operation": PARENT}
    for uuid, state in zip(SEGMENTS, segment_states, strict=False):
        flows.append(story.flow(uuid, "spawn.host", graph(HOST_TASKS, HOST_EDGES), inputs, state))
    return flows


def success() -> Recording:
    story = Story()
    _parent(story, "SpawnOnHost")
    story.say(PARENT, "SpawnOnHost", "RUNNING", after=300)
    _host(story, SEGMENTS[0])
    story.say(SEGMENTS[0], None, "SUCCESS", after=300)
    story.say(PARENT, "SpawnOnHost", "SUCCESS", after=500)
    for name in PARENT_TASKS[PARENT_TASKS.index("CommitQuota") :]:
        story.do(PARENT, name, 2 * MS)
    story.say(PARENT, None, "SUCCESS", after=300)
    found = recording(story, _flows(story, "SUCCESS", "SUCCESS"), "SUCCESS")
    return replace(found, ledger=_ledger(SEGMENTS[0], "PRESENT"))


CAUSE = "cannot start domain web1: internal error: qemu unexpectedly closed the monitor: cannot set up guest memory"


def failed(debt: str | None = None) -> Recording:
    """StartDomain fails; everything is undone, but for DefineDomain where there is a debt."""
    story = Story()
    _parent(story, "SpawnOnHost")
    story.say(PARENT, "SpawnOnHost", "RUNNING", after=300)
    _fail_on_host(story, SEGMENTS[0], debt)
    story.say(PARENT, "SpawnOnHost", "FAILURE", failure(CAUSE), after=500)
    _undo_parent(story)
    outcome = "REVERTED_WITH_DEBT" if debt else "REVERTED"
    found = recording(story, _flows(story, "REVERTED", "REVERTED"), outcome, f"StartDomain: {CAUSE}")
    ledger = _ledger(SEGMENTS[0], "CLEARED")
    if debt:
        ledger = (*ledger[:-1], replace(ledger[-1], state="DEBT", error=debt))
    return replace(found, ledger=ledger)


def _fail_on_host(story: Story, flow: str, debt: str | None = None) -> None:
    _host(story, flow, "StartDomain")
    story.fail(flow, "StartDomain", 1_310 * MS, CAUSE)
    story.undo(flow, "StartDomain", 14 * MS)
    for name in reversed(HOST_TASKS[: HOST_TASKS.index("StartDomain")]):
        story.undo(flow, name, TOOK.get(name, 4 * MS) // 4, debt if name == "DefineDomain" else None)
    story.say(flow, None, "REVERTED", after=300)


def _undo_parent(story: Story) -> None:
    for name in reversed(PARENT_TASKS[: PARENT_TASKS.index("SpawnOnHost") + 1]):
        story.undo(PARENT, name, 2 * MS)
    story.say(PARENT, None, "REVERTED", after=300)


RETRIED = ("NextHost", "SelectHost", "ClaimHost", "SpawnOnHost")


def rescheduled() -> Recording:
    """The first host fails, is cleaned, and the second one does it."""
    story = Story()
    head, tail = PARENT_TASKS[: PARENT_TASKS.index("ClaimHost")], PARENT_TASKS[PARENT_TASKS.index("CommitQuota") :]
    tasks = (*head, *RETRIED, *tail)
    _parent(story, "ClaimHost")
    for attempt, flow in enumerate(SEGMENTS, 1):
        story.do(PARENT, "NextHost", MS, [f"kvm-0{attempt}"], attempt)
        story.do(PARENT, "SelectHost", 4 * MS, f"kvm-0{attempt}", attempt)
        story.do(PARENT, "ClaimHost", 5 * MS, None, attempt)
        story.say(PARENT, "SpawnOnHost", "RUNNING", attempt=attempt, after=300)
        story.host = f"kvm-0{attempt}"
        if attempt == 1:
            _fail_on_host(story, flow)
        else:
            _host(story, flow, mac="9e")
            story.say(flow, None, "SUCCESS", after=300)
        story.host = "kvm-01"
        if attempt == 1:
            story.say(PARENT, "SpawnOnHost", "FAILURE", failure(CAUSE), after=500)
            for name in reversed(RETRIED[1:]):
                story.undo(PARENT, name, 2 * MS)
            for name in RETRIED[1:]:
                story.say(PARENT, name, "PENDING")
            story.say(PARENT, "NextHost", "RETRYING", after=100)
        else:
            story.say(PARENT, "SpawnOnHost", "SUCCESS", attempt=attempt, after=500)
    for name in tail:
        story.do(PARENT, name, 2 * MS)
    story.say(PARENT, None, "SUCCESS", after=300)
    segments = _flows(story, "SUCCESS", "REVERTED", "SUCCESS")[1:]
    parent = story.flow(PARENT, "spawn", graph(tasks, chain(tasks), ["NextHost"]), {"request": {}}, "SUCCESS")
    found = recording(story, [parent, *segments], "SUCCESS")
    return replace(found, ledger=(*_ledger(SEGMENTS[0], "CLEARED"), *_ledger(SEGMENTS[1], "PRESENT")))


def resumed() -> Recording:
    """The process is killed while it fetches the image; two hours later another one goes on."""
    story = Story()
    _parent(story, "SpawnOnHost")
    story.say(PARENT, "SpawnOnHost", "RUNNING", after=300)
    story.begin(SEGMENTS[0])
    made = results()
    for name in ("ResolveHardware", "MakeInstanceDir"):
        story.do(SEGMENTS[0], name, 6 * MS, made.get(name))
    story.say(SEGMENTS[0], "FetchBase", "RUNNING", after=300)
    story.do(SEGMENTS[0], "AllocatePorts", 7 * MS, made["AllocatePorts"])
    story.clock += 2 * 3_600_000_000
    story.epoch = 2
    story.begin(PARENT, 5902)
    story.say(PARENT, "SpawnOnHost", "RUNNING", attempt=2, after=300)
    story.begin(SEGMENTS[0], 5902)
    story.do(SEGMENTS[0], "FetchBase", 3_120 * MS, made["FetchBase"], 2)
    done = {"ResolveHardware", "MakeInstanceDir", "FetchBase", "AllocatePorts"}
    for name in HOST_TASKS:
        if name not in done:
            story.do(SEGMENTS[0], name, TOOK.get(name, 6 * MS), made.get(name))
    story.say(SEGMENTS[0], None, "SUCCESS", after=300)
    story.say(PARENT, "SpawnOnHost", "SUCCESS", attempt=2, after=500)
    for name in PARENT_TASKS[PARENT_TASKS.index("CommitQuota") :]:
        story.do(PARENT, name, 2 * MS)
    story.say(PARENT, None, "SUCCESS", after=300)
    found = recording(story, _flows(story, "SUCCESS", "SUCCESS"), "SUCCESS")
    return replace(found, ledger=_ledger(SEGMENTS[0], "PRESENT"))


def many(count: int = 500, text: str = "x" * 400) -> Recording:
    """A flow of many tasks, in stages of different widths, the last of which fails: all are undone."""
    story = Story()
    names = [f"CopyVolume{number:03d}" for number in range(count)]
    stages, start = [], 0
    for width in (1, 3, 1, 7, 2, 1, 12, 4, 1, 5) * count:
        if start >= count:
            break
        stages.append(names[start : start + width])
        start += width
    edges = [(a, b) for one, two in pairwise(stages) for a in one for b in two]
    story.begin(PARENT)
    for stage in stages[:-1]:
        for name in stage:
            story.say(PARENT, name, "RUNNING", after=90)
        for place, name in enumerate(stage):
            story.say(PARENT, name, "SUCCESS", {"result": {"volume": name, "log": text}}, after=(place * 37 % 11) * MS)
    for name in stages[-1]:
        story.fail(PARENT, name, 40 * MS, f"cannot copy volume {name}: the target is full")
    for name in reversed(names):
        story.undo(PARENT, name, 2 * MS)
    story.say(PARENT, None, "REVERTED", after=100)
    flow = story.flow(PARENT, "evacuate", graph(names, edges), {}, "REVERTED")
    ledger = tuple(entry(PARENT, name, "volume", f"pool/{name}", "CLEARED") for name in names)
    return replace(recording(story, [flow], "REVERTED", "the target is full"), ledger=ledger)


HOSTILE = "</script><img src=x onerror=alert(1)><!--<script>'\"&\u202e\u2028\x1b[31m"


def hostile() -> Recording:
    """Everything that is text somewhere says something that would be markup."""
    story = Story(host=HOSTILE)
    story.begin(PARENT)
    story.do(PARENT, HOSTILE, 10, {HOSTILE: [HOSTILE, f"<domain>\n<name>{HOSTILE}</name>\n</domain>"]})
    story.fail(PARENT, "Second", 10, HOSTILE)
    drawn = graph([HOSTILE, "Second"], [(HOSTILE, "Second")])
    flow = story.flow(PARENT, HOSTILE, drawn, {HOSTILE: HOSTILE}, "FAILURE")
    found = recording(story, [flow], "REVERTED", HOSTILE)
    operation = replace(found.operation, target=f"instance:{HOSTILE}", request={"name": HOSTILE})
    left = entry(PARENT, HOSTILE, HOSTILE, HOSTILE, "DEBT", HOSTILE)
    return replace(found, operation=operation, ledger=(left,))


STORIES = {
    "success": success,
    "failed": failed,
    "rescheduled": rescheduled,
    "resumed": resumed,
    "many": many,
    "hostile": hostile,
}
