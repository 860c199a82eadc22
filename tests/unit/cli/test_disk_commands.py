"""Disks on the command line: options of spawn, properties of flavors, pruning the image cache."""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from virtflow.cli.main import Virtflow
from virtflow.cli.spawn import Spawn, build_request
from virtflow.errors import InvalidRequest
from virtflow.images.blank_bases import BlankBases
from virtflow.persistence.database import Database
from virtflow.persistence.images import BaseReferenceRepository
from virtflow.requests import SpawnRequest

Cli = Callable[..., Any]
CONSUMER, OPERATION = "aaaaaaaa-0000-4000-8000-000000000001", "11111111-0000-4000-8000-000000000001"


def request_of(*argv: str) -> SpawnRequest:
    app = Virtflow(io.StringIO(), io.StringIO())
    parser = Spawn(app, argparse.Namespace(), cmd_name="spawn").get_parser("virtflow spawn")
    return build_request(parser.parse_args(("web1", "--image", "i", "--flavor", "f", *argv)))


def test_ephemeral_disks_and_swap_are_options_of_spawn() -> None:
    request = request_of("--ephemeral", "10", "--ephemeral", "2:vfat", "--swap", "512")
    assert [(each.size, each.fs) for each in request.ephemeral_gib or ()] == [(10, None), (2, "vfat")]
    assert request.swap_mib == 512
    assert (request_of().ephemeral_gib, request_of().swap_mib) == (None, None)


@pytest.mark.parametrize(
    ("option", "value", "field"),
    [
        ("--ephemeral", "ten", "ephemeral_gib"),
        ("--ephemeral", "1:", "ephemeral_gib"),
        ("--ephemeral", "1:ntfs", r"ephemeral_gib\[0\]\.fs"),
        ("--ephemeral", "0", r"ephemeral_gib\[0\]\.size"),
        ("--swap", "-1", "swap_mib"),
    ],
)
def test_a_wrong_disk_names_its_field(option: str, value: str, field: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{field}: "):
        request_of(option, value)


@pytest.mark.usefixtures("database")
def test_a_flavor_with_wrong_disks_is_not_created(cli: Cli) -> None:
    create = ("flavor", "create", "roomy", "--vcpus", "1", "--memory", "64", "--disk", "1")
    for field, value in (("ephemeral_gib", "many"), ("swap_mib", "1G")):
        answer = cli(*create, "--property", f"{field}={value}")
        assert (answer.code, answer.err.split(":")[2].strip()) == (2, field)
    assert cli("flavor", "show", "roomy").code == 3
    assert cli(*create, "--property", "ephemeral_gib=20,4:vfat", "--property", "swap_mib=512").code == 0


@pytest.fixture
def instances(state_dir: Path, database: Database) -> Path:
    """Four swap bases, all last used in 1970: one of a disk, one of a kernel's domain, one referred to, one unused."""
    path = state_dir / "instances"
    bases = BlankBases(path / "_base", path / "locks")
    disk, kernel, referred, _unused = (bases.swap(size).path for size in (1, 2, 3, 4))
    for each in (path / "_base").iterdir():
        os.utime(each, (0, 0))
    (path / CONSUMER).mkdir()
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", disk, str(path / CONSUMER / "disk.swap")]
    subprocess.run(create, check=True)
    (path / CONSUMER / "libvirt.xml").write_text(f"<domain><os><kernel>{kernel}</kernel></os></domain>")
    BaseReferenceRepository(database).add_reference(referred, "swap_3", "kvm-01", CONSUMER, OPERATION)
    return path


def test_pruning_removes_what_neither_a_disk_nor_a_domain_nor_a_reference_uses(cli: Cli, instances: Path) -> None:
    (instances / "_base" / "swap_9.part").write_bytes(b"killed")
    os.utime(instances / "_base" / "swap_9.part", (0, 0))
    answer = cli("image", "prune", "-f", "json")
    assert answer.code == 0, answer.err
    removed = [Path(row["path"]).name for row in json.loads(answer.out)]
    assert removed == ["swap_9.part", "swap_4"]
    assert {path.name for path in (instances / "_base").iterdir()} == {"swap_1", "swap_2", "swap_3"}


def test_a_reference_of_another_host_keeps_nothing_here(cli: Cli, instances: Path, database: Database) -> None:
    BaseReferenceRepository(database).add_reference(
        str(instances / "_base" / "swap_4"), "swap_4", "kvm-02", CONSUMER, OPERATION
    )
    assert cli("image", "prune", "-f", "value").out == f"{instances}/_base/swap_4\n"


def test_what_was_used_lately_stays_unless_told_otherwise(cli: Cli, instances: Path) -> None:
    for each in (instances / "_base").iterdir():
        os.utime(each)
    part = instances / "_base" / "swap_9.part"
    part.write_bytes(b"killed just now")
    assert cli("image", "prune", "-f", "value").out == ""
    assert cli("image", "prune", "--older-than", "3600", "-f", "value").out == ""
    assert part.exists()
    assert cli("image", "prune", "--older-than", "0", "-f", "value").out.split() == [
        str(part),
        f"{instances}/_base/swap_4",
    ]


def test_pruning_an_empty_host_removes_nothing(cli: Cli) -> None:
    answer = cli("image", "prune", "-f", "json")
    assert (answer.code, json.loads(answer.out)) == (0, [])


def test_a_negative_age_is_a_usage_error(cli: Cli) -> None:
    assert cli("image", "prune", "--older-than", "-1").code == 2
