"""Volumes: one made of an image against qemu-img alone, and many at once on one backend."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.table import Target, show, show_targets
from virtflow import Runner
from virtflow.config import load
from virtflow.images.catalog import LocalCatalog
from virtflow.requests import VolumeCreateRequest

_DATA, _SIZE = 128 << 20, 1 << 30
_AT_ONCE = 50
_WAYS = ("after each other", "at once")
_BARE = "qemu-img convert -f raw -O raw IMAGE TARGET && sync TARGET"


def volume_of_image(rounds: int) -> list[Target]:
    """From the request to the volume, of an image that is in the cache; the image is a quarter data, the rest holes."""
    with tempfile.TemporaryDirectory(prefix="vfb-", dir="/var/tmp") as name, _runner(Path(name)) as runner:
        image = Path(name, "image")
        _fill(image)
        LocalCatalog(runner.config.images.catalog).add(image, "image", "raw")
        _made(runner, "warms-the-cache")
        turns = []
        for number in range(rounds):
            ours = _made(runner, f"volume-{number}")
            bare, target = _BARE.replace("IMAGE", str(image)), Path(name, "bare")
            start = time.perf_counter()
            subprocess.run(["sh", "-c", bare.replace("TARGET", str(target))], check=True)
            turns.append((ours, time.perf_counter() - start))
            taken = [path.stat().st_blocks * 512 for path in (_newest(runner), target)]
            target.unlink()
    rows = [
        ("virtflow volume create --image", f"{statistics.median(ours for ours, _ in turns):.2f}"),
        ("qemu-img convert, sync", f"{statistics.median(bare for _, bare in turns):.2f}"),
    ]
    show("A volume of 1 GiB, of an image with 128 MiB of data", ("", "seconds"), rows)
    ratio = statistics.median(ours / bare for ours, bare in turns)
    targets = [
        Target("times qemu-img convert: a volume of an image", ratio, 1.1, most=True),
        Target("times the room that qemu-img's copy takes: a volume of an image", taken[0] / taken[1], 1.01, most=True),
    ]
    show_targets(targets)
    return targets


def volumes_at_once(rounds: int) -> list[Target]:
    """Fifty requests at the same moment, in one process, for one backend; and fifty after each other."""
    turns = [(_all_made(1), _all_made(_AT_ONCE)) for _ in range(rounds)]
    seconds = {title: statistics.median(taken) for title, taken in zip(_WAYS, zip(*turns, strict=True), strict=True)}
    rows = [(title, f"{taken:.2f}", f"{taken / _AT_ONCE * 1000:.0f}") for title, taken in seconds.items()]
    show(f"{_AT_ONCE} blank volumes on one backend", ("", "seconds", "ms each"), rows)
    ratio = statistics.median(at_once / in_turn for in_turn, at_once in turns)
    targets = [Target(f"times as long as after each other: {_AT_ONCE} volumes at once", ratio, 1.0, most=True)]
    show_targets(targets)
    return targets


def _all_made(workers: int) -> float:
    """Seconds for all of them, of which so many are made at once."""
    with tempfile.TemporaryDirectory(prefix="vfb-", dir="/var/tmp") as name, _runner(Path(name)) as runner:
        requests = [VolumeCreateRequest(name=f"v{number}", size_gib=1) for number in range(_AT_ONCE)]
        start = time.perf_counter()
        with ThreadPoolExecutor(workers) as pool:
            done = list(pool.map(runner.run, requests))
        seconds = time.perf_counter() - start
        assert {each.outcome for each in done} == {"SUCCESS"}
        assert len(list(_volumes(runner))) == _AT_ONCE
    return seconds


def _runner(directory: Path) -> Runner:
    overrides = {"state_dir": str(directory / "state"), "volumes.ratio": "100", "quota.volume_gib": "-1"}
    return Runner(load(overrides=overrides, env={}))


def _made(runner: Runner, name: str) -> float:
    start = time.perf_counter()
    runner.run(VolumeCreateRequest(name=name, size_gib=_SIZE >> 30, image="image"))
    return time.perf_counter() - start


def _volumes(runner: Runner) -> list[Path]:
    return list(Path(runner.config.volumes.path, "local").glob("volume-*"))


def _newest(runner: Runner) -> Path:
    return max(_volumes(runner), key=lambda path: path.stat().st_mtime_ns)


def _fill(path: Path) -> None:
    with path.open("wb") as file:
        for _part in range(_DATA >> 20):
            file.write(os.urandom(1 << 20))
        file.truncate(_SIZE)
