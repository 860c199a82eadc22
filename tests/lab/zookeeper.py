"""A private ZooKeeper on loopback, that does not wait for its disk. Its JVM is ready after half a second when idle."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.lab.servers import Server, says

_JARS = [Path("/usr/share/java") / name for name in ("zookeeper.jar", "slf4j-nop.jar")]
"""Debian's; the first names those that it needs itself."""


def missing() -> str | None:
    """What this machine lacks, as a reason to skip; None when it has everything."""
    if shutil.which("java") is None:
        return "needs a Java runtime (package default-jre-headless)"
    return None if _JARS[0].exists() else "needs a ZooKeeper server (package libzookeeper-java)"


class ZooKeeper(Server):
    """Sessions end after 1 to 10 seconds: 2 to 20 ticks."""

    name = "ZooKeeper"

    @property
    def url(self) -> str:
        return f"zookeeper://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        configuration = self.directory / "zoo.cfg"
        settings = {
            "tickTime": 500,
            "dataDir": self.data,
            "clientPort": self.port,
            "clientPortAddress": "127.0.0.1",
            "admin.enableServer": "false",
            "maxClientCnxns": 0,
            "4lw.commands.whitelist": "ruok",
        }
        configuration.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        java = ["java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dzookeeper.forceSync=no"]
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        return [*java, "-cp", ":".join(map(str, _JARS)), main, str(configuration)]

    def answers(self) -> bool:
        return says(self.port, b"ruok", b"imok")
