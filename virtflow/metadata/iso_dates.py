"""Give every date in an ISO 9660 image the same value, so that the same files are always the same image.

Where they are: ECMA-119 sections 8.4.26-8.4.29 (volume descriptors) and 9.1.5 (directory records), and the Rock Ridge
Interchange Protocol 4.1.6 (TF entries) of each record's system use field.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_SECTOR = 2048
_FIRST_DESCRIPTOR = 16
_END = 255
_DESCRIPTORS_WITH_DATES = (1, 2)
_ROOT_RECORD = 156
_CREATION, _MODIFICATION, _EFFECTIVE = 813, 830, 864
_DIRECTORY = 0x02
_TF_LONG_FORM = 0x80

_LONG_DATE = b"2000010100000000\x00"
_SHORT_DATE = bytes((100, 1, 1, 0, 0, 0, 0))
"""2000-01-01 00:00 UTC: any fixed day that no guest takes for the future."""


def fix_dates(image: bytearray) -> None:
    """Rewrite the dates of an image that a program of ours has just made (its structure is trusted)."""
    sector = _FIRST_DESCRIPTOR
    while (kind := image[sector * _SECTOR]) != _END:
        if kind in _DESCRIPTORS_WITH_DATES:
            start = sector * _SECTOR
            for offset in (_CREATION, _MODIFICATION, _EFFECTIVE):
                image[start + offset : start + offset + len(_LONG_DATE)] = _LONG_DATE
            _fix_tree(image, start + _ROOT_RECORD)
        sector += 1


def _fix_tree(image: bytearray, root: int) -> None:
    _fix_record(image, root)
    pending, seen = [root], set()
    while pending:
        start, length = _extent(image, pending.pop())
        seen.add(start)  # "." and ".." lead back
        for record in _records(image, start, length):
            _fix_record(image, record)
            if image[record + 25] & _DIRECTORY and _extent(image, record)[0] not in seen:
                pending.append(record)


def _extent(image: bytearray, record: int) -> tuple[int, int]:
    """Where the record's data is and how long, in bytes."""
    sector, length = struct.unpack_from("<I4xI", image, record + 2)
    return sector * _SECTOR, length


def _records(image: bytearray, start: int, length: int) -> Iterator[int]:
    position = start
    while position < start + length:
        if image[position]:
            yield position
            position += image[position]
        else:  # records do not cross sectors; the rest of this one is zeros
            position += _SECTOR - position % _SECTOR


def _fix_record(image: bytearray, record: int) -> None:
    image[record + 18 : record + 25] = _SHORT_DATE
    name_length = image[record + 32]
    entry = record + 33 + name_length + (1 - name_length % 2)
    end = record + image[record]
    while entry + 4 <= end and image[entry + 2] >= 4:
        size = image[entry + 2]
        if image[entry : entry + 2] == b"TF" and not image[entry + 4] & _TF_LONG_FORM:
            image[entry + 5 : entry + size] = _SHORT_DATE * ((size - 5) // len(_SHORT_DATE))
        entry += size
