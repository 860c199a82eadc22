"""A warm spawn against the bare commands, cold spawns that share an image, and what an image's size costs in memory."""

from __future__ import annotations

import statistics

from benchmarks.hosts import lab_host, on_host
from benchmarks.table import Target, show, show_targets


def warm_spawn(rounds: int) -> list[Target]:
    """Wall time of a spawn whose image is in the cache, on the same libvirtd as a shell script does it."""
    with lab_host() as host:
        measured = on_host(host, "benchmarks.warm_spawn", 3 * rounds)
    ours, bare = measured["virtflow"], measured["bare"]
    ratio = statistics.median(own / its for own, its in zip(ours, bare, strict=True))
    rows = [
        ("bare commands", f"{statistics.median(bare) * 1000:.0f}", ""),
        ("virtflow", f"{statistics.median(ours) * 1000:.0f}", f"{ratio:.2f}x"),
    ]
    show("A warm spawn", ("", "ms", "to bare commands"), rows)
    tasks = measured["tasks"].items()
    show("Its tasks", ("", "ms"), [(name, f"{statistics.median(seconds) * 1000:.1f}") for name, seconds in tasks])
    targets = [Target("a warm spawn against the bare commands", ratio, 1.2, most=True)]
    show_targets(targets)
    return targets


def cold_spawns(rounds: int) -> list[Target]:
    """Eight at once of an image that nobody has: it is downloaded once, and they do not wait for each other's rest.

    The slowest single chain of steps is that of a cold spawn alone (see ``cold_spawn``). With packet filters a libvirtd
    is held up by itself: it applies those of one guest after the other, under a lock, whoever asks for the starts.
    """
    targets = []
    with lab_host() as host:
        for embedded, driver in ((True, "the embedded driver"), (False, "libvirtd with packet filters")):
            turns = range(max(1, rounds // 2))
            measured = [on_host(host, "benchmarks.cold_spawn", embedded=embedded) for _ in turns]
            ratio = statistics.median(its["together"] / its["chain"] for its in measured)
            rows = [
                ("the chain of one alone", f"{statistics.median(its['chain'] for its in measured):.2f}", ""),
                ("eight at once", f"{statistics.median(its['together'] for its in measured):.2f}", f"{ratio:.2f}x"),
            ]
            show(f"Cold spawns of an image of {measured[0]['mib']} MiB, {driver}", ("", "s", "to the chain"), rows)
            downloads = max(its["downloads"] for its in measured)
            targets.append(Target(f"downloads by eight spawns at once, {driver}", downloads, 1, most=True))
            targets.append(
                Target(f"eight cold spawns at once against the chain of one, {driver}", ratio, 1.5, most=True)
            )
    show_targets(targets)
    return targets


def memory(rounds: int) -> list[Target]:  # noqa: ARG001 - peaks do not vary
    """Peak resident memory of a cold spawn, for a small image and a large one."""
    targets = []
    rows = []
    with lab_host() as host:
        for disk_format in ("raw", "qcow2"):
            small, large = (on_host(host, "benchmarks.spawn_memory", disk_format, size) for size in (64, 2048))
            rows += [
                (f"{disk_format}, {size}", f"{own:.0f}", f"{programs:.0f}")
                for size, (own, programs) in (("64 MiB", small), ("2 GiB", large))
            ]
            for which, bound in ((0, 8.0), (1, 8.0)):
                what = ("process", "programs")[which]
                text = f"MiB more for 2 GiB than for 64 MiB, {disk_format}, {what}"
                targets.append(Target(text, large[which] - small[which], bound, most=True))
    show("Peak memory of a cold spawn", ("image", "process MiB", "largest program MiB"), rows)
    show_targets(targets)
    return targets
