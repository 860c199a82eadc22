"""How the readers of image headers say no."""

from __future__ import annotations


class HeaderRefused(Exception):
    """Why an image is refused; the text follows the image's name in ImageRefused, which ``inspection`` makes of it."""


def refuse_size(virtual_size: int, limit: int) -> None:
    """Refuse a virtual size (bytes) that is none, or above the limit."""
    if virtual_size == 0:
        raise HeaderRefused("its virtual size is zero")
    if virtual_size > limit:
        raise HeaderRefused(f"its virtual size of {virtual_size} bytes is above the limit of {limit} bytes")
