"""Where a host keeps its UEFI: the code, which guests share, and the variables, of which each guest has a copy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from virtflow.errors import HostLacks

_CANDIDATES = {
    "x86_64": (
        ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),  # Debian 12, Ubuntu 22.04 and later
        ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),  # Debian 11, CentOS 8
        ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),  # Fedora, CentOS Stream 9
        ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),  # Arch Linux
    ),
    "aarch64": (("/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"),),
}
_PACKAGES = {"x86_64": "ovmf", "aarch64": "qemu-efi-aarch64"}


@dataclass(frozen=True)
class Firmware:
    """Absolute paths of the read-only code and of the template of the variables."""

    code: str
    variables: str


def find_uefi(arch: str, root: Path = Path("/")) -> Firmware:
    """The first pair that is installed, code and variables of the same build. HostLacks when there is none."""
    for code, variables in _CANDIDATES.get(arch, ()):
        if all((root / path.lstrip("/")).is_file() for path in (code, variables)):
            return Firmware(code, variables)
    package = _PACKAGES.get(arch)
    remedy = f"install it (apt install {package})" if package else f"it is not known for {arch}"
    raise HostLacks(action="boot with UEFI", missing="its firmware", remedy=remedy)
