"""``python -m benchmarks.resize_downtime URI DIRECTORY ROUNDS``: resizes through Runner and by bare commands, in turns.

A guest is resized on its host, to a disk of 2 GiB, and confirmed. Prints JSON: for both, round by round, the seconds
from the moment at which the guest begins to be stopped to that at which it runs again.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path

from benchmarks.on_host import add_image, request, runner
from virtflow import DeleteRequest, Runner
from virtflow.engine.run import TaskEvent
from virtflow.requests import ResizeRequest

_SCRIPT = r"""set -e
virsh -q -c "$URI" destroy bare >/dev/null
mkdir "$DIR.new"
for name in disk disk.config; do
    cp --sparse=always --reflink=auto "$DIR/$name" "$DIR.new/$name"
    sync "$DIR.new/$name"
done
virsh -q -c "$URI" undefine bare >/dev/null
mv "$DIR" "$DIR.old"
qemu-img info --output=json -f qcow2 "$DIR.new/disk" >/dev/null
qemu-img rebase -q -f qcow2 -F raw -b "$LARGER" "$DIR.new/disk"
qemu-img resize -q -f qcow2 "$DIR.new/disk" 2G
sync "$DIR.new/disk" "$DIR.new"
mv "$DIR.new" "$DIR"
virsh -q -c "$URI" define "$XML" >/dev/null
virsh -q -c "$URI" start bare >/dev/null
"""
"""The same by hand: the old disk is kept, and the new one is on disk before the guest runs on it."""


class BareGuest:
    """A guest as virtflow makes them, under another name."""

    def __init__(self, uri: str, directory: Path, model: Runner, name: str) -> None:
        instance = model.services["instances"].find(name, model.config.project_name)
        theirs = Path(model.config.instances.path, instance.uuid)
        self._uri, self._directory, self._theirs = uri, directory, theirs
        xml = (theirs / "libvirt.xml").read_text()
        xml = re.sub(r"<interface.*?</interface>", "", xml, flags=re.DOTALL)
        self._xml = re.sub(r"<name>.*?</name>", "<name>bare</name>", xml)
        base = str(model.services["qemu_img"].info(theirs / "disk", "qcow2").backing_file)
        self._base, self._larger = base, base.rpartition("_")[0] + "_2"

    def resize(self) -> float:
        own = self._directory / uuid.uuid4().hex
        own.mkdir()
        xml = self._xml.replace(str(self._theirs), str(own)).replace(self._theirs.name, str(uuid.uuid4()))
        file = self._directory / f"{own.name}.xml"
        file.write_text(xml)
        overlay = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", self._base, str(own / "disk")]
        drive = ["cp", str(self._theirs / "disk.config"), str(own)]
        virsh = ["virsh", "-q", "-c", self._uri]
        for command in (overlay, drive, [*virsh, "define", str(file)], [*virsh, "start", "bare"]):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        environment = {"DIR": str(own), "XML": str(file), "LARGER": self._larger, "URI": self._uri}
        start = time.perf_counter()
        subprocess.run(["sh", "-c", _SCRIPT], env={**environment, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, check=True)
        seconds = time.perf_counter() - start
        for command in ([*virsh, "destroy", "bare"], [*virsh, "undefine", "bare"]):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return seconds


def main() -> None:
    uri, directory, rounds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    at: dict[tuple[str, str], int] = {}

    def on_event(event: TaskEvent) -> None:
        at.setdefault((event.task, event.state), event.at)

    ours, bare = [], []
    with runner(uri, directory / "state", on_event=on_event) as resizing:
        object.__setattr__(resizing.config.resize, "shutdown_timeout", 0.0)  # the guest that halts heeds no button
        add_image(resizing, "halt", 1 << 20)
        resizing.run(request("model", "halt"))
        by_hand = BareGuest(uri, directory, resizing, "model")
        for number in range(rounds + 1):  # the first makes the larger base
            name = f"guest{number}"
            resizing.run(request(name, "halt", networks=[]))
            at.clear()
            operation = resizing.run(ResizeRequest(name=name, disk_gib=2))
            seconds = (at["StartDomain", "SUCCESS"] - at["ShutDownGuest", "RUNNING"]) / 1e6
            resizing.undo(operation.id)
            resizing.run(DeleteRequest(name=name))
            if number:
                ours.append(seconds)
                bare.append(by_hand.resize())
    print(json.dumps({"virtflow": ours, "bare": bare}))


if __name__ == "__main__":
    main()
