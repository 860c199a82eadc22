"""The config drive as an ISO 9660 image with Rock Ridge and Joliet names, made in this process."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

from virtflow.errors import ConfigDriveError
from virtflow.metadata.iso_dates import fix_dates

if TYPE_CHECKING:
    from pycdlib import PyCdlib

VOLUME_ID = "config-2"
"""cloud-init and cloudbase-init search for this label, on ISO 9660 and on FAT."""

_DIRECTORY_MODE = 0o040555
_FILE_MODE = 0o100444
"""In the guest. Read-only, and for every user there, as in OpenStack: agents do not all run as root."""


def iso_image(tree: Mapping[str, bytes]) -> bytes:
    """The whole image; the same tree is always the same image. Raises ConfigDriveError."""
    # Not at the top: it costs 25 ms, and mkisofs_cmd does without.
    from pycdlib import PyCdlib
    from pycdlib.pycdlibexception import PyCdlibException

    iso = PyCdlib()
    try:
        iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=VOLUME_ID, pub_ident_str="virtflow")
        _add(iso, tree)
        out = io.BytesIO()
        iso.write_fp(out)
        iso.close()
    except PyCdlibException as error:
        raise ConfigDriveError(reason=str(error)) from error
    image = bytearray(out.getbuffer())
    fix_dates(image)
    return bytes(image)


def _add(iso: PyCdlib, tree: Mapping[str, bytes]) -> None:
    """Add directories and files. Plain ISO 9660 gets numbers for names (it has capitals only, and no second dot); the
    real names are in Rock Ridge and Joliet, one of which every reader of config drives understands."""
    numbered = {"": ""}
    for number, (path, content) in enumerate(sorted(tree.items())):
        *parents, name = path.split("/")
        for depth in range(1, len(parents) + 1):
            directory = "/".join(parents[:depth])
            if directory not in numbered:
                numbered[directory] = f"{numbered['/'.join(parents[: depth - 1])]}/D{len(numbered):06d}"
                iso.add_directory(
                    numbered[directory],
                    rr_name=parents[depth - 1],
                    joliet_path=f"/{directory}",
                    file_mode=_DIRECTORY_MODE,
                )
        iso.add_fp(
            io.BytesIO(content),
            len(content),
            f"{numbered['/'.join(parents)]}/F{number:06d}.;1",
            rr_name=name,
            joliet_path=f"/{path}",
            file_mode=_FILE_MODE,
        )
