"""ssh between the lab's hosts, for root, with keys that nobody else has."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.lab.hosts import LabHost
from tests.lab.processes import alive, start, wait_until

_START_SECONDS = 20
_CONFIG = """\
ListenAddress {address}
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/authorized_keys
AuthenticationMethods publickey
StrictModes no
UsePAM no
PidFile none
"""


def missing() -> str | None:
    """What this machine lacks for it."""
    if not Path("/usr/sbin/sshd").exists():
        return "package openssh-server"
    return None if shutil.which("virt-ssh-helper") else "virt-ssh-helper (package libvirt-daemon)"


def exchange_keys(directories: dict[str, Path]) -> None:
    """Write what each host, by its address, needs into its directory, which it will see as root's ``.ssh``."""
    for directory in directories.values():
        directory.mkdir(parents=True, mode=0o700)
        for name in ("id_ed25519", "host_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)], check=True)
    public = [(each / "id_ed25519.pub").read_text() for each in directories.values()]
    known = [f"{address} {(each / 'host_key.pub').read_text()}" for address, each in directories.items()]
    for directory in directories.values():
        (directory / "authorized_keys").write_text("".join(public))
        (directory / "known_hosts").write_text("".join(known))


def serve(host: LabHost, directory: Path) -> None:
    """Let the others come in, to what this host's libvirtd sees; it ends with the host."""
    config = directory / "sshd_config"
    config.write_text(_CONFIG.format(address=host.address, directory=directory))
    (host.root / "run/sshd").mkdir()
    within = ["nsenter", f"--target={host.libvirtd_pid()}", "--mount", "--net", "--uts", "--"]
    log = host.root / "sshd.log"
    pid = start([*within, "/usr/sbin/sshd", "-D", "-e", "-f", str(config)], log)
    if not wait_until(lambda: "Server listening" in log.read_text() or not alive(pid), _START_SECONDS):
        raise RuntimeError(f"sshd does not start: {log.read_text()}")
