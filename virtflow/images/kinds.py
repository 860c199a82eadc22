"""What an image is by its properties, and what a root disk is therefore made from.

``image_type`` is ``snapshot`` for one; a snapshot with ``base_image_id_sha1`` holds only what changed over that image.
"""

from __future__ import annotations

from collections.abc import Mapping

IMAGE = "image"
SNAPSHOT = "snapshot"
DELTA = "delta"

TYPE_PROPERTY = "image_type"
BASE_PROPERTY = "base_image_id_sha1"

_FROM = {
    (IMAGE, False): "image",
    (IMAGE, True): "backing file",
    (SNAPSHOT, False): "image",
    (SNAPSHOT, True): "backing file",
    (DELTA, False): "delta",
    (DELTA, True): "backing file",
}


def kind_of(properties: Mapping[str, str]) -> str:
    """IMAGE, SNAPSHOT (complete) or DELTA (changes only)."""
    if properties.get(TYPE_PROPERTY) != "snapshot":
        return IMAGE
    return DELTA if properties.get(BASE_PROPERTY) else SNAPSHOT


def made_from(kind: str, *, disk_has_backing: bool) -> str:
    """What a root disk of an image of this kind is made from.

    ``image``: the base made of the whole image. ``delta``: the image itself, on the base that it names. ``backing
    file``: a disk is there already, from another host, and needs the base that its own header names.
    """
    return _FROM[kind, disk_has_backing]
