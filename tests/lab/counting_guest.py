"""A boot sector that counts its boots on the disk that it boots from: it reads, adds one, writes, and halts.

So what is on a volume before and after its instance has moved is read and written by a guest, at the price of a guest
that does nothing.
"""

from __future__ import annotations

SECTOR = 512
_CODE = bytes.fromhex(
    "31c0"  # xor ax, ax
    "8ed88ec08ed0"  # mov ds, ax; mov es, ax; mov ss, ax
    "bc007c"  # mov sp, 0x7c00
    "bb007e"  # mov bx, 0x7e00
    "b90200"  # mov cx, 2: the second sector
    "ba8000"  # mov dx, 0x80: of the first disk
    "b80102"  # mov ax, 0x0201: read one
    "cd13"  # int 0x13
    "720a"  # jc to the end
    "ff07"  # inc word [bx]
    "b90200"  # mov cx, 2
    "b80103"  # mov ax, 0x0301: write one
    "cd13"  # int 0x13
    "faf4ebfd"  # cli; hlt; jmp to the hlt
)
SECTORS = (_CODE.ljust(SECTOR - 2, b"\0") + b"\x55\xaa").ljust(1 << 20, b"\0")
"""The image."""


def boots(second_sector: bytes) -> int:
    """How often, from the second sector of the disk."""
    return int.from_bytes(second_sector[:2], "little")
