"""``python -m benchmarks.warm_spawn URI DIRECTORY ROUNDS``: warm spawns through Runner and by bare commands, in turns.

Prints JSON: seconds of both, round by round, and of the runner's tasks.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.on_host import add_image, request, runner
from virtflow import DeleteRequest, Runner
from virtflow.engine.run import TaskEvent

_SCRIPT = r"""set -e
mkdir "$DIR"
qemu-img create -q -f qcow2 -F raw -b "$BASE" "$DIR/disk"
genisoimage -quiet -input-charset utf-8 -o "$DIR/disk.config" -ldots -allow-lowercase -allow-multidot -l -J -r \
    -V config-2 "$TREE" 2>/dev/null
ip tuntap add dev "$TAP" mode tap
ip link set dev "$TAP" master brlab up
[ -z "$FILTER" ] || virsh -q -c "$URI" nwfilter-define "$FILTER" >/dev/null
virsh -q -c "$URI" define "$XML" >/dev/null
virsh -q -c "$URI" start bare >/dev/null
"""
"""The same guest by hand. The config drive's tree, the domain's XML and the filter's are there already."""


class BareCommands:
    """Spawns the guest that virtflow made, once more, under other names."""

    def __init__(self, uri: str, directory: Path, model: Runner, name: str) -> None:
        self._uri = uri
        self._directory = directory
        instance = model.services["instances"].find(name, model.config.project_name)
        theirs = Path(model.config.instances.path, instance.uuid)
        self._xml = (theirs / "libvirt.xml").read_text()
        self._theirs = theirs
        self._tap = re.search(r'target dev="(vf\w+)"', self._xml)[1]  # type: ignore[index]
        hypervisor = model.services["hypervisor"]
        theirs_filter = f"virtflow-{self._tap}"
        self._filter = self._filter_file(theirs_filter) if theirs_filter in hypervisor.filters() else ""
        disk = model.services["qemu_img"].info(theirs / "disk", "qcow2")
        tree = directory / "tree"
        (tree / "openstack").mkdir(parents=True)
        (tree / "openstack" / "meta_data.json").write_text(json.dumps({"uuid": instance.uuid}))
        self._environment = {"BASE": str(disk.backing_file), "TREE": str(tree), "URI": uri, "TAP": "vfbare"}

    def spawn(self) -> float:
        environment = {**self._environment, **self._files(), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        start = time.perf_counter()
        subprocess.run(["sh", "-c", _SCRIPT], env=environment, check=True)
        return time.perf_counter() - start

    def remove(self) -> None:
        virsh = ["virsh", "-q", "-c", self._uri]
        for command in (
            [*virsh, "destroy", "bare"],
            [*virsh, "undefine", "bare"],
            [*virsh, "nwfilter-undefine", "virtflow-vfbare"],
            ["ip", "link", "del", "vfbare"],
        ):
            subprocess.run(command, check=False, capture_output=True)

    def _files(self) -> dict[str, str]:
        own = self._directory / uuid.uuid4().hex
        other = str(uuid.uuid4())
        xml = self._xml.replace(str(self._theirs), str(own)).replace(self._theirs.name, other)
        xml = re.sub(r"<name>.*?</name>", "<name>bare</name>", xml).replace(self._tap, "vfbare")
        path = self._directory / f"{own.name}.xml"
        path.write_text(xml)
        return {"DIR": str(own), "XML": str(path), "FILTER": self._filter}

    def _filter_file(self, name: str) -> str:
        command = ["virsh", "-q", "-c", self._uri, "nwfilter-dumpxml", name]
        xml = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        path = self._directory / "filter.xml"
        path.write_text(re.sub(r"\s*<uuid>.*?</uuid>", "", xml).replace(self._tap, "vfbare"))
        return str(path)


def main() -> None:
    uri, directory, rounds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    began: dict[str, int] = {}
    tasks: dict[str, list[float]] = defaultdict(list)

    def on_event(event: TaskEvent) -> None:
        if event.state == "RUNNING":
            began.setdefault(event.task, event.at)
        elif event.state == "SUCCESS":
            tasks[event.task].append((event.at - began.pop(event.task)) / 1e6)

    with runner(uri, directory / "state", on_event=on_event) as warm:
        add_image(warm, "halt", 1 << 20)
        warm.run(request("model", "halt"))
        bare = BareCommands(uri, directory, warm, "model")
        bare.spawn()
        bare.remove()
        warm.run(DeleteRequest(name="model"))
        print(json.dumps(_measure(warm, bare, rounds, tasks)))


def _measure(warm: Runner, bare: BareCommands, rounds: int, tasks: dict[str, list[float]]) -> dict[str, Any]:
    ours, theirs = [], []
    tasks.clear()
    for number in range(rounds):
        start = time.perf_counter()
        warm.run(request(f"guest{number}", "halt"))
        ours.append(time.perf_counter() - start)
        spawned = {name: list(seconds) for name, seconds in tasks.items()}
        warm.run(DeleteRequest(name=f"guest{number}"))
        tasks.clear()
        tasks.update(spawned)
        theirs.append(bare.spawn())
        bare.remove()
    return {"virtflow": ours, "bare": theirs, "tasks": tasks}


if __name__ == "__main__":
    main()
