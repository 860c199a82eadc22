"""What the specification says of disks, kernel and ramdisk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from virtflow.config.options import InstancesOptions
from virtflow.errors import InvalidRequest, NotFound
from virtflow.flows.spawn.disks import DiskShape, disk_shape, disk_tasks, optional_results
from virtflow.images import blank_bases, disk_backends
from virtflow.images.records import ImageRecord
from virtflow.persistence.flavors import Flavor
from virtflow.requests import SpawnRequest
from virtflow.requests import disks as requested
from virtflow.tasks.disk_request import claimed, disk_fields
from virtflow.tasks.settings import HostSettings

SIZES = {"vcpus": 1, "memory_mib": 128, "disk_gib": 5}


class Source:
    """Images by id."""

    def __init__(self, *records: ImageRecord) -> None:
        self.records = {record.id: record for record in records}

    def get(self, name_or_id: str) -> ImageRecord:
        try:
            return self.records[name_or_id]
        except KeyError:
            raise NotFound(kind="image", name=name_or_id) from None

    def find_by_sha1(self, sha1: str) -> ImageRecord:
        for record in self.records.values():
            if sha1_of(record.id) == sha1:
                return record
        raise NotFound(kind="image", name=sha1)


def sha1_of(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


def image(name: str = "debian", disk_format: str = "qcow2", **properties: str) -> ImageRecord:
    return ImageRecord(name, name, "glance", disk_format, properties=properties)


def fields(
    record: ImageRecord | None = None,
    *others: ImageRecord,
    flavor: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
    **wanted: Any,
) -> dict[str, Any]:
    size = SIZES if flavor is None else {"flavor": "roomy"}
    request = SpawnRequest(name="web", image="debian", **size, **wanted).to_plain()
    known = None if flavor is None else Flavor("roomy", 1, 128, 5, dict(flavor))
    host = HostSettings("host", Path("/i"), **(settings or {}))
    return disk_fields(request, 5, known, record or image(), Source(*others), host)


# -- ephemeral disks and swap -----------------------------------------------------------------------------------------


def test_without_a_wish_there_is_only_the_root_disk() -> None:
    found = fields()
    assert (found["ephemerals"], found["swap_mib"], found["claimed_disk_gib"]) == ([], 0, 5)
    assert (found["kernel"], found["ramdisk"], found["snapshot_base"], found["image_kind"]) == (
        None,
        None,
        None,
        "image",
    )


def test_ephemeral_disks_are_numbered_labelled_and_get_the_configured_file_system() -> None:
    found = fields(ephemeral_gib=[3, {"size": 1, "fs": "vfat"}], settings={"ephemeral_filesystem": "ext3"})
    assert found["ephemerals"] == [
        {"size_gib": 3, "filesystem": "ext3", "label": "ephemeral0"},
        {"size_gib": 1, "filesystem": "vfat", "label": "ephemeral1"},
    ]


def test_quota_and_host_are_charged_for_all_disks_swap_in_whole_gib() -> None:
    spec = {"vcpus": 1, "memory_mib": 128, **fields(ephemeral_gib=[3, 1], swap_mib=1025)}
    assert claimed(spec) == {"vcpus": 1, "memory_mib": 128, "disk_gib": 5 + 3 + 1 + 2}


def test_the_flavor_says_what_the_request_leaves_out() -> None:
    found = fields(flavor={"ephemeral_gib": "4, 2:vfat", "swap_mib": "512"})
    assert [(each["size_gib"], each["filesystem"]) for each in found["ephemerals"]] == [(4, "ext4"), (2, "vfat")]
    assert found["swap_mib"] == 512
    found = fields(flavor={"ephemeral_gib": "4", "swap_mib": "512"}, ephemeral_gib=[], swap_mib=0)
    assert (found["ephemerals"], found["swap_mib"]) == ([], 0)


@pytest.mark.parametrize(
    ("field", "wanted"), [("ephemeral_gib", {"ephemeral_gib": [3, 2]}), ("swap_mib", {"swap_mib": 513})]
)
def test_a_request_may_not_ask_for_more_than_its_flavor_has(field: str, wanted: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=f"^{field}: .* is more than .* of flavor 'roomy'") as refused:
        fields(flavor={"ephemeral_gib": "4", "swap_mib": "512"}, **wanted)
    assert refused.value.field == field


def test_a_flavor_that_says_nothing_of_them_limits_nothing() -> None:
    found = fields(flavor={}, ephemeral_gib=[50], swap_mib=4096)
    assert (found["ephemerals"][0]["size_gib"], found["swap_mib"]) == (50, 4096)


def test_a_file_system_that_cannot_be_so_large_is_refused_with_the_number_of_the_disk() -> None:
    with pytest.raises(InvalidRequest, match=r"^ephemeral_gib\[1\]: vfat takes 1 to 2047 GiB, not 2048"):
        fields(ephemeral_gib=[1, {"size": 2048, "fs": "vfat"}])


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ([0], r"ephemeral_gib\[0\].size"),
        ([-1], r"ephemeral_gib\[0\].size"),
        ([16384], r"ephemeral_gib\[0\].size"),
        ([1, True], r"ephemeral_gib\[1\].size"),
        (["1"], r"ephemeral_gib\[0\]"),
        ([1.5], r"ephemeral_gib\[0\]"),
        ([None], r"ephemeral_gib\[0\]"),
        ([{"size": 1, "fs": "xfs"}], r"ephemeral_gib\[0\].fs"),
        ([{"size": 1, "fs": "../x"}], r"ephemeral_gib\[0\].fs"),
        ([{"fs": "ext4"}], r"ephemeral_gib\[0\].size"),
        ([{"size": 1, "label": "x"}], r"ephemeral_gib\[0\].label"),
        ([1] * 17, "ephemeral_gib"),
        (1, "ephemeral_gib"),
    ],
)
def test_a_wrong_ephemeral_disk_is_refused_by_its_field(value: Any, field: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{field}: "):
        SpawnRequest(name="web", image="i", **SIZES, ephemeral_gib=value)


@pytest.mark.parametrize("value", [-1, (1 << 20) + 1, True, "512", 1.5])
def test_a_wrong_swap_is_refused_by_its_field(value: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^swap_mib: "):
        SpawnRequest(name="web", image="i", **SIZES, swap_mib=value)


@pytest.mark.parametrize(
    "text", ["x", "1:", ":ext4", "-1", "1.5", "0", "99999", "1:xfs", "1:ext4:x", "²", ",".join("1" * 17)]
)
def test_a_wrong_flavor_property_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^ephemeral_gib: "):
        requested.parse_ephemerals(text)


@pytest.mark.parametrize("text", ["x", "", "-1", "1.5", "1048577", "²"])
def test_a_wrong_swap_of_a_flavor_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^swap_mib: "):
        requested.parse_swap(text)


def test_a_request_with_disks_survives_being_stored() -> None:
    request = SpawnRequest(name="w", image="i", **SIZES, ephemeral_gib=[1, {"size": 2, "fs": "vfat"}], swap_mib=64)
    assert SpawnRequest.from_plain(request.to_plain(), {}) == request


def test_what_can_be_asked_for_can_be_made() -> None:
    assert set(requested.FILESYSTEMS) == set(blank_bases.FILESYSTEMS)
    assert max(blank_bases.LARGEST_GIB.values()) == requested.LARGEST_EPHEMERAL_GIB
    options = InstancesOptions.__dataclass_fields__
    assert set(options["ephemeral_filesystem"].metadata["option"].choices) == set(blank_bases.FILESYSTEMS)
    assert options["disk_backend"].metadata["option"].choices == disk_backends.BACKENDS


# -- kernel and ramdisk -----------------------------------------------------------------------------------------------


def test_kernel_and_ramdisk_are_the_images_that_the_image_names() -> None:
    kernel, ramdisk = image("k", "aki"), image("r", "raw")
    found = fields(image(kernel_id="k", ramdisk_id="r"), kernel, ramdisk)
    assert (found["kernel"], found["ramdisk"]) == (kernel.to_dict(), ramdisk.to_dict())
    found = fields(image(kernel_id="k"), kernel)
    assert (found["kernel"], found["ramdisk"]) == (kernel.to_dict(), None)


def test_a_ramdisk_without_a_kernel_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"^image: image 'debian' has a ramdisk_id without a kernel_id"):
        fields(image(ramdisk_id="r"), image("r", "ari"))


def test_a_kernel_is_raw() -> None:
    with pytest.raises(InvalidRequest, match=r"^image: kernel or ramdisk 'k' is qcow2, not raw or aki or ari"):
        fields(image(kernel_id="k"), image("k"))


def test_a_kernel_that_is_not_there_is_refused() -> None:
    with pytest.raises(NotFound, match="image 'k' not found"):
        fields(image(kernel_id="k"))


# -- snapshots --------------------------------------------------------------------------------------------------------


def changes(base: str, name: str = "debian") -> ImageRecord:
    return image(name, image_type="snapshot", base_image_id_sha1=base)


def test_the_base_of_a_snapshot_of_changes_is_found_by_the_sha1_of_its_id() -> None:
    base = image("base")
    found = fields(changes(sha1_of("base")), image("other"), base)
    assert (found["image_kind"], found["snapshot_base"]) == ("delta", base.to_dict())


def test_a_complete_snapshot_is_an_image_like_any_other() -> None:
    found = fields(image(image_type="snapshot"))
    assert (found["image_kind"], found["snapshot_base"]) == ("snapshot", None)


@pytest.mark.parametrize("sha1", ["x", "../" + "0" * 37, "0" * 39, "A" * 40, "0" * 40 + "\n"])
def test_a_base_that_is_no_sha1_is_refused(sha1: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^image: base_image_id_sha1 of image 'debian' is no SHA-1"):
        fields(changes(sha1))


def test_a_base_that_is_not_there_is_refused() -> None:
    with pytest.raises(NotFound):
        fields(changes("0" * 40))


def test_changes_over_changes_are_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"^image: .* which itself holds only changes"):
        fields(changes(sha1_of("middle")), changes("0" * 40, "middle"))


# -- the graph --------------------------------------------------------------------------------------------------------


def names_of(shape: DiskShape) -> list[str]:
    return [task.name for task in disk_tasks(shape)]


def test_the_tasks_follow_from_the_specification() -> None:
    root = ["FetchBase", "SizeBase", "CreateCowOverlay"]
    assert names_of(disk_shape(fields())) == root
    assert names_of(disk_shape(fields(ephemeral_gib=[1], swap_mib=1))) == [*root, "CreateEphemerals", "CreateSwap"]
    for backend in ("raw", "qcow2-flat"):
        found = fields(settings={"disk_backend": backend})
        assert names_of(disk_shape(found)) == ["FetchBase", "SizeBase", "CreateFlatDisk"]
    found = fields(image(kernel_id="k", ramdisk_id="r"), image("k", "aki"), image("r", "ari"))
    assert names_of(disk_shape(found)) == [*root, "FetchKernel", "FetchRamdisk"]
    found = fields(changes(sha1_of("base")), image("base"))
    expected = ["FetchDelta", "FetchSnapshotBase", "SizeBase", "CreateSnapshotDisk"]
    assert names_of(disk_shape(found)) == expected


def test_the_domain_waits_for_every_disk_that_is_made() -> None:
    everything = DiskShape(ephemerals=True, swap=True, kernel=True, ramdisk=True)
    for shape in (DiskShape(), everything, DiskShape(delta=True, overlay=False, swap=True)):
        provided = {name for task in disk_tasks(shape) for name in task.provides}
        assert provided - {"base", "sized_base", "delta"} == {"root_disk", *optional_results(shape)}
