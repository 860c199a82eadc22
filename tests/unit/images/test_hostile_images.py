"""Every hostile image we know of, made here byte by byte, is refused with a reason a person can act on."""

from __future__ import annotations

import contextlib
import struct
import subprocess
from pathlib import Path

import pytest

from virtflow.errors import ImageRefused
from virtflow.images.inspection import MAX_VIRTUAL_SIZE, Inspected, disguise, inspect, inspect_head

GIB = 1 << 30
CLUSTER = 1 << 16
DIRTY, CORRUPT, DATA_FILE = 1, 2, 4

QCOW2_FIELDS = (
    ("magic", "4s"),
    ("version", "I"),
    ("backing_offset", "Q"),
    ("backing_size", "I"),
    ("cluster_bits", "I"),
    ("size", "Q"),
    ("encryption", "I"),
    ("l1_entries", "I"),
    ("l1_offset", "Q"),
    ("refcount_offset", "Q"),
    ("refcount_clusters", "I"),
    ("snapshots", "I"),
    ("snapshots_offset", "Q"),
    ("incompatible", "Q"),
    ("compatible", "Q"),
    ("autoclear", "Q"),
    ("refcount_order", "I"),
    ("header_length", "I"),
)


def qcow2(*, extensions: bytes = b"", **fields: int | bytes) -> bytes:
    """A qcow2 image that is sound unless a field says otherwise: header, refcounts, an empty L1 table."""
    values: dict[str, int | bytes] = {
        **dict.fromkeys((name for name, _ in QCOW2_FIELDS), 0),
        "magic": b"QFI\xfb",
        "version": 3,
        "cluster_bits": 16,
        "size": GIB,
        "l1_entries": 2,
        "l1_offset": 3 * CLUSTER,
        "refcount_offset": CLUSTER,
        "refcount_clusters": 1,
        "refcount_order": 4,
        "header_length": 104,
        **fields,
    }
    header = struct.pack(">" + "".join(kind for _, kind in QCOW2_FIELDS), *(values[name] for name, _ in QCOW2_FIELDS))
    image = bytearray(4 * CLUSTER)
    image[: len(header)] = header
    image[104 : 104 + len(extensions)] = extensions
    image[CLUSTER : CLUSTER + 8] = struct.pack(">Q", 2 * CLUSTER)
    image[2 * CLUSTER : 2 * CLUSTER + 8] = struct.pack(">4H", 1, 1, 1, 1)
    return bytes(image)


def extension(kind: int, content: bytes) -> bytes:
    return struct.pack(">II", kind, len(content)) + content.ljust((len(content) + 7) // 8 * 8, b"\0")


def vmdk(
    create_type: str = "monolithicSparse",
    extents: str = 'RW 2048 SPARSE "disk.vmdk"',
    *,
    capacity: int = 2048,
    more: str = "",
) -> bytes:
    descriptor = f'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n{more}createType="{create_type}"\n'
    text = f"{descriptor}\n# Extent description\n{extents}\n".encode()
    header = struct.pack("<4sIIQQQQIQQQ", b"KDMV", 1, 3, capacity, 128, 1, 20, 512, 21, 26, 128)
    return header.ljust(512, b"\0") + text.ljust(20 * 512, b"\0") + bytes(128 * 512)


def vmdk_text(create_type: str, extents: str) -> bytes:
    return (
        f'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="{create_type}"\n{extents}\n'.encode()
    )


def at(*marks: tuple[int, bytes], size: int = 1 << 20) -> bytes:
    image = bytearray(size)
    for offset, mark in marks:
        image[offset : offset + len(mark)] = mark
    return bytes(image)


ISO = (32768, b"\x01CD001\x01")
VDI_TEXT = b"<<< QEMU VM Virtual Disk Image >>>\n".ljust(64, b"\0")
VDI = (0, VDI_TEXT + struct.pack("<IIII", 0xBEDA107F, 0x10001, 400, 1) + bytes(288) + struct.pack("<Q", GIB))
VHD = (0, b"conectix" + bytes(32) + struct.pack(">QQII", GIB, GIB, 0, 3))
MBR = (446, b"\x80" + bytes(3) + b"\x83" + bytes(3) + struct.pack("<II", 1, 2047) + bytes(48) + b"\x55\xaa")

BACKING = b"/etc/passwd"

HOSTILE: dict[str, tuple[str, bytes, str]] = {
    "qcow2_backing_file": ("qcow2", qcow2(backing_offset=512, backing_size=11), "backing file"),
    "qcow2_backing_size_only": ("qcow2", qcow2(backing_size=11), "backing file"),
    "qcow2_version_2_backing_file": ("qcow2", qcow2(version=2, backing_offset=512, backing_size=11), "backing file"),
    "qcow2_data_file_bit": ("qcow2", qcow2(incompatible=DATA_FILE), "external data file"),
    "qcow2_data_file_name": ("qcow2", qcow2(extensions=extension(0x44415441, BACKING)), "external data file"),
    "qcow2_data_file_name_behind_another": (
        "qcow2",
        qcow2(extensions=extension(0x6803F857, bytes(48)) + extension(0x44415441, BACKING)),
        "external data file",
    ),
    "qcow2_dirty": ("qcow2", qcow2(incompatible=DIRTY), "dirty"),
    "qcow2_corrupt": ("qcow2", qcow2(incompatible=CORRUPT), "corrupt"),
    "qcow2_unknown_feature": ("qcow2", qcow2(incompatible=1 << 5), "unknown incompatible"),
    "qcow2_unknown_high_feature": ("qcow2", qcow2(incompatible=1 << 63), "unknown incompatible"),
    "qcow2_luks": ("qcow2", qcow2(encryption=2), "encrypted"),
    "qcow2_luks_extension": ("qcow2", qcow2(extensions=extension(0x0537BE77, bytes(16))), "encrypted"),
    "qcow2_aes": ("qcow2", qcow2(encryption=1), "encrypted"),
    "qcow2_version_9": ("qcow2", qcow2(version=9), "version 9"),
    "qcow1": ("qcow2", qcow2(version=1), "version 1"),
    "qcow2_size_2_62": ("qcow2", qcow2(size=1 << 62), "limit"),
    "qcow2_above_limit": ("qcow2", qcow2(size=MAX_VIRTUAL_SIZE + 512, l1_entries=1 << 18), "limit"),
    "qcow2_size_zero": ("qcow2", qcow2(size=0), "zero"),
    "qcow2_l1_offset_2_55": ("qcow2", qcow2(l1_offset=1 << 55), "beyond the end"),
    "qcow2_l1_offset_wraps": ("qcow2", qcow2(l1_offset=(1 << 64) - CLUSTER), "beyond the end"),
    "qcow2_l1_in_header": ("qcow2", qcow2(l1_offset=0), "no place"),
    "qcow2_l1_unaligned": ("qcow2", qcow2(l1_offset=3 * CLUSTER + 1), "no place"),
    "qcow2_l1_2_31": ("qcow2", qcow2(l1_entries=1 << 31), "L1 table"),
    "qcow2_l1_too_small": ("qcow2", qcow2(l1_entries=1), "needs 2"),
    "qcow2_refcounts_outside": ("qcow2", qcow2(refcount_offset=1 << 40), "refcount table lies beyond"),
    "qcow2_refcounts_absurd": ("qcow2", qcow2(refcount_clusters=1 << 31), "refcount table"),
    "qcow2_many_snapshots": ("qcow2", qcow2(snapshots=1 << 31, snapshots_offset=CLUSTER), "snapshots"),
    "qcow2_snapshots_outside": ("qcow2", qcow2(snapshots=1, snapshots_offset=1 << 40), "snapshot table lies beyond"),
    "qcow2_cluster_bits": ("qcow2", qcow2(cluster_bits=40), "cluster size"),
    "qcow2_cluster_bits_small": ("qcow2", qcow2(cluster_bits=4), "cluster size"),
    "qcow2_header_length": ("qcow2", qcow2(header_length=1 << 31), "header length"),
    "qcow2_header_length_short": ("qcow2", qcow2(header_length=8), "header length"),
    "qcow2_extension_too_long": ("qcow2", qcow2(extensions=struct.pack(">II", 7, 1 << 31)), "reaches beyond"),
    "qcow2_extensions_without_end": (
        "qcow2",
        qcow2(cluster_bits=21, extensions=extension(0x6803F857, bytes(4 * CLUSTER - 112))),
        "no end",
    ),
    "qcow2_8_bytes": ("qcow2", qcow2()[:8], "truncated"),
    "qcow2_100_bytes": ("qcow2", qcow2()[:100], "truncated"),
    "qcow2_4_bytes_as_raw": ("raw", b"QFI\xfb", "content is qcow2"),
    "qcow2_8_bytes_as_raw": ("raw", qcow2()[:8], "content is qcow2"),
    "qcow2_100_bytes_as_raw": ("raw", qcow2()[:100], "content is qcow2"),
    "qcow2_as_raw": ("raw", qcow2(), "content is qcow2"),
    "qcow2_as_vmdk": ("vmdk", qcow2(), "content is qcow2"),
    "qcow2_as_iso": ("iso", qcow2(), "content is qcow2"),
    "raw_as_qcow2": ("qcow2", at(MBR), "content is not"),
    "raw_as_vhd": ("vhd", at(MBR), "content is not"),
    "empty": ("raw", b"", "empty"),
    "unknown_declared_format": ("exe", at(MBR), "'exe' is not one of"),
    "vmdk_flat_in_sparse_header": ("vmdk", vmdk("monolithicFlat", 'RW 1 FLAT "/etc/passwd" 0'), "create type"),
    "vmdk_flat_extent_in_allowed_type": ("vmdk", vmdk(extents='RW 1 FLAT "passwd" 0'), "extents"),
    "vmdk_two_extents": ("vmdk", vmdk(extents='RW 1 SPARSE "a"\nRW 1 SPARSE "b"'), "extents"),
    "vmdk_no_extents": ("vmdk", vmdk(extents=""), "extents"),
    "vmdk_extent_with_path": ("vmdk", vmdk(extents='RW 1 SPARSE "/etc/passwd"'), "unsafe vmdk"),
    "vmdk_two_gb_max": ("vmdk", vmdk("twoGbMaxExtentSparse"), "create type"),
    "vmdk_two_create_types": ("vmdk", vmdk(more='createType="monolithicFlat"\n'), "create type"),
    "vmdk_no_capacity": ("vmdk", vmdk(capacity=0), "no capacity"),
    "vmdk_parent": ("vmdk", vmdk(more='parentFileNameHint="/etc/passwd"\n'), "backing file"),
    "vmdk_descriptor_flat": ("vmdk", vmdk_text("monolithicFlat", 'RW 1 FLAT "/etc/passwd" 0'), "names other files"),
    "vmdk_descriptor_sparse": ("vmdk", vmdk_text("monolithicSparse", 'RW 1 SPARSE "disk"'), "names other files"),
    "vmdk_descriptor_as_raw": ("raw", vmdk_text("monolithicFlat", 'RW 1 FLAT "/x" 0'), "content is vmdk"),
    "vmdk_descriptor_with_no_comment_as_raw": ("raw", b'\nversion=1\ncreateType="vmfs"\n', "content is vmdk"),
    "vmdk_truncated": ("vmdk", vmdk()[:100], "truncated"),
    "vmdk_cut_before_descriptor": ("vmdk", vmdk()[:600], "not where it belongs"),
    "vmdk_esx_sparse": ("vmdk", b"COWD" + bytes(2048), "names other files"),
    "vmdk_as_raw": ("raw", vmdk(), "content is vmdk"),
    "luks": ("raw", at((0, b"LUKS\xba\xbe\0\x01")), "encrypted"),
    "luks_as_qcow2": ("qcow2", at((0, b"LUKS\xba\xbe\0\x02")), "encrypted"),
    "qed": ("raw", at((0, b"QED\0")), "QED"),
    "qed_as_qcow2": ("qcow2", at((0, b"QED\0")), "QED"),
    "vdi_as_raw": ("raw", at(VDI), "content is vdi"),
    "vdi_difference": ("vdi", at(VDI, (0x4C, struct.pack("<I", 4))), "difference"),
    "vhd_as_raw": ("raw", at(VHD), "content is vhd"),
    "vhd_difference": ("vhd", at((0, b"conectix" + bytes(52) + struct.pack(">I", 4))), "dynamic"),
    "vhd_fixed_as_raw": ("raw", at(((1 << 20) - 512, b"conectix")), "content is vhd"),
    "vhdx_as_raw": ("raw", at((0, b"vhdxfile")), "content is vhdx"),
    "vhdx_of_nothing_else": ("vhdx", at((0, b"vhdxfile")), "vhdx"),
    "parallels_as_raw": ("raw", at((0, b"WithouFreSpacExt")), "content is parallels"),
    "dmg_as_raw": ("raw", at(((1 << 20) - 512, b"koly")), "content is dmg"),
    "iso_as_raw": ("raw", at(ISO), "content is iso"),
    "iso_and_qcow2_as_iso": ("iso", at(ISO, (0, qcow2()[:32768])), "several formats at once: iso, qcow2"),
    "iso_and_qcow2_as_qcow2": ("qcow2", at(ISO, (0, qcow2()[:32768])), "several formats at once: iso, qcow2"),
    "iso_and_vmdk": ("iso", at(ISO, (0, vmdk()[:20000])), "several formats at once"),
    "qcow2_and_vdi": ("qcow2", qcow2(snapshots=0, snapshots_offset=0x7F10DABE << 32), "several formats at once"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_image_is_refused_with_a_clear_reason(case: str, tmp_path: Path) -> None:
    declared, content, reason = HOSTILE[case]
    path = tmp_path / "image"
    path.write_bytes(content)
    with pytest.raises(ImageRefused) as refused:
        inspect(path, declared, name="bad one")
    assert reason in refused.value.reason
    assert str(refused.value).startswith("image 'bad one' refused: ")
    assert "\n" not in str(refused.value)


def made_by_qemu_img(path: Path, driver: str, *options: str) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", driver, *options, path, "64M"], check=True)


@pytest.mark.parametrize(
    ("declared", "driver", "options"),
    [
        ("qcow2", "qcow2", ()),
        ("qcow2", "qcow2", ("-o", "compat=0.10")),
        ("qcow2", "qcow2", ("-o", "compression_type=zstd")),
        ("qcow2", "qcow2", ("-o", "cluster_size=2M")),
        ("qcow2", "qcow2", ("-o", "cluster_size=512")),
        ("qcow2", "qcow2", ("-o", "lazy_refcounts=on")),
        ("vmdk", "vmdk", ()),
        ("vdi", "vdi", ()),
        ("vhd", "vpc", ("-o", "force_size=on")),
        ("vhdx", "vhdx", ()),
        ("raw", "raw", ()),
    ],
)
def test_an_honest_image_passes(declared: str, driver: str, options: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "image"
    made_by_qemu_img(path, driver, *options)
    assert inspect(path, declared, name="good") == Inspected(driver, 64 << 20)


def test_a_stream_optimized_vmdk_passes(tmp_path: Path) -> None:
    raw, image = tmp_path / "raw", tmp_path / "image"
    raw.write_bytes(bytes(range(256)) * 8192)
    options = ["-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized"]
    subprocess.run(["qemu-img", "convert", *options, raw, image], check=True)
    assert inspect(image, "vmdk", name="good") == Inspected("vmdk", 2 << 20)
    with pytest.raises(ImageRefused, match="create type streamoptimized is not among monolithicSparse"):
        inspect(image, "vmdk", name="good", vmdk_types=("monolithicSparse",))


def vmdk_with_footer() -> bytearray:
    """As VMware writes streamOptimized: the grain directory's place stands only in a footer."""
    content = bytearray(vmdk("streamOptimized"))
    footer = content[:512]
    content[56:64] = b"\xff" * 8
    marker = struct.pack("<QII496x", 1, 0, 3)
    return content + marker + footer + bytes(512)


@pytest.mark.parametrize(
    ("position", "damage"),
    [(0, b"\0"), (4, b"\2"), (28, b"\2"), (36, b"\1"), (56, b"\xff" * 8), (-500, b"\1"), (None, b"")],
)
def test_a_footer_that_contradicts_the_header_is_refused(position: int | None, damage: bytes, tmp_path: Path) -> None:
    content = vmdk_with_footer()
    if position is not None:
        start = len(content) - 1024 + position
        content[start : start + len(damage)] = damage
    (tmp_path / "image").write_bytes(content)
    if position is None:
        assert inspect(tmp_path / "image", "vmdk", name="good").virtual_size == 1 << 20
        return
    with pytest.raises(ImageRefused, match="unsafe vmdk"):
        inspect(tmp_path / "image", "vmdk", name="bad")


@pytest.mark.parametrize(
    ("declared", "content"),
    [
        ("raw", at(MBR)),
        ("raw", at((0, b"\xeb\x3c\x90mkfs.fat"), (510, b"\x55\xaa"))),
        ("raw", b"just one line of text, not a VMDK descriptor\n" * 40),
        ("iso", at(ISO)),
        ("iso", at(ISO, MBR)),
        ("qcow2", qcow2()),
    ],
)
def test_partition_tables_text_and_hybrid_isos_are_no_reason_to_refuse(
    declared: str, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "image"
    path.write_bytes(content)
    inspected = inspect(path, declared, name="good")
    assert inspected == (Inspected("qcow2", GIB) if declared == "qcow2" else Inspected("raw", len(content)))


def test_the_limit_of_the_virtual_size_is_the_callers(tmp_path: Path) -> None:
    path = tmp_path / "image"
    made_by_qemu_img(path, "qcow2")
    assert inspect(path, "qcow2", name="good", max_virtual_size=64 << 20).virtual_size == 64 << 20
    with pytest.raises(ImageRefused, match="above the limit of 67108863 bytes"):
        inspect(path, "qcow2", name="good", max_virtual_size=(64 << 20) - 1)


def test_a_huge_disk_in_a_small_file_passes_below_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "image"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1T"], check=True)
    assert inspect(path, "qcow2", name="good").virtual_size == 1 << 40


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    made_by_qemu_img(tmp_path / "image", "raw")
    (tmp_path / "link").symlink_to("image")
    with pytest.raises(Exception, match="cannot inspect") as refused:
        inspect(tmp_path / "link", "raw", name="link")
    assert type(refused.value).__name__ == "HostStorageError"


@pytest.mark.parametrize("case", ["qcow2_backing_file", "qcow2_size_2_62", "qcow2_as_raw", "luks", "vmdk_as_raw"])
def test_the_beginning_of_a_hostile_image_is_enough_to_refuse_it(case: str) -> None:
    declared, content, reason = HOSTILE[case]
    with pytest.raises(ImageRefused) as refused:
        inspect_head(content, declared, name="bad")
    assert reason in refused.value.reason


@pytest.mark.parametrize(("content", "found"), [(qcow2(), "qcow2"), (at(MBR), None), (at(ISO), None), (at(VHD), "vhd")])
def test_a_base_that_looks_like_another_format_is_noticed(content: bytes, found: str | None, tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(content)
    assert disguise(tmp_path / "base") == found


def test_every_prefix_of_a_qcow2_header_is_refused_whatever_it_was_declared_as(tmp_path: Path) -> None:
    path = tmp_path / "image"
    whole = qcow2()

    def refused(declared: str) -> bool:
        try:
            inspect(path, declared, name="cut")
        except ImageRefused:
            return True
        return False

    for length in [*range(4, 200), 511, 512, 513, CLUSTER, 3 * CLUSTER, 3 * CLUSTER + 15]:
        path.write_bytes(whole[:length])
        assert refused("raw"), length
        assert refused("qcow2"), length


@pytest.mark.parametrize(
    ("declared", "content"), [("qcow2", qcow2()), ("vmdk", vmdk()), ("vhd", at(VHD)), ("vdi", at(VDI))]
)
def test_a_damaged_header_gets_an_answer_or_a_refusal_and_nothing_else(
    declared: str, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "image"
    answers = 0
    for position in range(0, 600, 7):
        for value in (0x00, 0x7F, 0xFF):
            damaged = bytearray(content)
            damaged[position] = value
            path.write_bytes(damaged)
            with contextlib.suppress(ImageRefused):
                answers += inspect(path, declared, name="damaged").format == {"vhd": "vpc"}.get(declared, declared)
    assert 0 < answers < 3 * 86
