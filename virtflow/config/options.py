"""Every option of virtflow: its type, default, bounds and help, each stated once.

``Config`` is what the rest of the program sees: plain frozen dataclasses, one per group of the configuration file, with
all values resolved. The oslo.config options are derived from these fields (see ``virtflow.config.loading``).
"""
# ruff: noqa: RUF009 (``option`` is ``dataclasses.field`` under another name)

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from virtflow.config.migration_options import MigrationOptions
from virtflow.config.resize_options import ResizeOptions
from virtflow.config.spec import NAME_PATTERN, option
from virtflow.config.volume_options import VolumesOptions
from virtflow.config.worker_options import JobboardOptions, SchedulerOptions, WorkerOptions


@dataclass(frozen=True, kw_only=True)
class DatabaseOptions:
    url: str = option(
        "sqlite:///$state_dir/virtflow.db",
        "SQLAlchemy URL of the database: sqlite, postgresql+psycopg or mysql+pymysql.",
        pattern=r"(sqlite|postgresql|mysql|mariadb)(\+[a-z0-9_]+)?://.*",
        wanted="a URL of sqlite, postgresql or mysql",
        credentials=True,
    )
    busy_timeout: float = option(
        30.0, "Seconds to wait for a lock of the database before giving up.", low=0.1, high=3600
    )


@dataclass(frozen=True, kw_only=True)
class LibvirtOptions:
    uri: str = option(
        "qemu:///embed?root=$state_dir/libvirt",
        "libvirt connection URI. qemu:///embed?root=DIR runs libvirt's QEMU driver inside this process, without any "
        "daemon; qemu:///system is the host's libvirtd.",
        pattern=r"[a-z][a-z0-9+.-]*://.*",
        wanted="a libvirt URI",
    )
    virt_type: str = option(
        "auto",
        "How guests are run: kvm (hardware), qemu (emulated), or auto: kvm where the host can.",
        choices=("auto", "qemu", "kvm"),
    )
    machine: str = option(
        "auto",
        "QEMU machine type such as q35 or pc; auto takes what suits the host's architecture.",
        pattern=r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}",
    )
    cpu_model: str | None = option(
        None,
        "CPU model of the guests, as in `virsh cpu-models x86_64`; unset takes what suits virt_type.",
        pattern=r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}",
    )
    disk_cache: str = option(
        "none",
        "QEMU cache mode of the guests' disks. unsafe loses data when the host goes down.",
        choices=("none", "writeback", "writethrough", "directsync", "unsafe"),
    )
    hotplug_ports: int = option(
        8, "PCI Express slots that a guest has free, for volumes that are attached while it runs.", low=0, high=24
    )
    vnc: bool = option(False, "Give every guest a screen, by VNC on 127.0.0.1 of its host.")
    wait_for_embed: float = option(
        60.0,
        "Seconds to wait while another process holds the directory of qemu:///embed (only one can at a time).",
        low=0,
        high=3600,
    )

    @property
    def embed_root(self) -> Path | None:
        """The directory of ``qemu:///embed?root=DIR``, or None for any other URI."""
        parts = urlsplit(self.uri)
        if parts.path != "/embed":
            return None
        root = parse_qs(parts.query).get("root")
        return Path(root[0]) if root else None


@dataclass(frozen=True, kw_only=True)
class ImagesOptions:
    source: str = option(
        "catalog", "Where images come from: the local catalog, or Glance.", choices=("catalog", "glance")
    )
    catalog: Path = option("$state_dir/images", "Directory of the local catalog.")
    max_virtual_size: int = option(
        2048, "GiB. An image that claims a larger virtual size is refused.", low=1, high=1048576
    )


@dataclass(frozen=True, kw_only=True)
class GlanceOptions:
    endpoint: str | None = option(
        None,
        "URL of the image service; unset takes it from Keystone's catalog.",
        pattern=r"https?://.+",
        wanted="an http(s) URL",
    )
    auth_url: str | None = option(
        None,
        "URL of Keystone; unset means that no authentication is needed.",
        pattern=r"https?://.+",
        wanted="an http(s) URL",
    )
    username: str | None = option(None, "User name for Keystone.")
    password: str | None = option(None, "Password for Keystone.", secret=True)
    project_name: str | None = option(None, "Project for Keystone.")
    user_domain_name: str = option("Default", "Domain of the user.")
    project_domain_name: str = option("Default", "Domain of the project.")
    region_name: str | None = option(None, "Region whose image service is taken from the catalog.")
    token: str | None = option(None, "A ready token, instead of user name and password.", secret=True)
    cafile: Path | None = option(None, "PEM file of the certificate authority; unset takes the system's.")
    timeout: float = option(30.0, "Seconds without an answer, or without a byte, before giving up.", low=1, high=3600)


@dataclass(frozen=True, kw_only=True)
class InstancesOptions:
    path: Path = option("$state_dir/instances", "Directory of the instances' disks and of the image cache.")
    trash_retention: int = option(
        86400,
        "Seconds for which the disks of a deleted instance are kept, so that the delete can be undone.",
        low=0,
        high=31536000,
    )
    disk_backend: str = option(
        "qcow2",
        "How the disks of an instance are kept: qcow2 (changes over a shared base), qcow2-flat (a qcow2 file of its "
        "own), or raw. An instance keeps what it was made with.",
        choices=("qcow2", "qcow2-flat", "raw"),
    )
    ephemeral_filesystem: str = option(
        "ext4", "File system of ephemeral disks whose request names none.", choices=("ext4", "ext3", "vfat")
    )
    base_retention: int = option(
        86400, "Seconds for which `virtflow image prune` keeps a base that nobody uses.", low=60, high=31536000
    )
    sized_bases: bool = option(
        True, "Keep a copy of each base per disk size, so that guests find a file system that needs no growing."
    )


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    mtu: int = option(1500, "MTU, in bytes, of a network that is created without one.", low=576, high=65535)
    dns: tuple[str, ...] = option((), "Addresses of the name servers given to guests whose network has none.")
    vif_events: str = option(
        "own",
        "Who says that a port's cable is in: own (virtflow looks at the taps it has made), or external (somebody else "
        "plugs them and runs `virtflow event vif-plugged`). Guests are started paused until then.",
        choices=("own", "external"),
    )
    vif_plugging_timeout: float = option(
        300.0, "Seconds to wait for the cables of a guest's ports; 0 does not wait at all.", low=0, high=86400
    )
    vif_plugging_is_fatal: bool = option(
        True, "Whether a cable that is not in by then fails the operation; otherwise the guest runs without it."
    )


@dataclass(frozen=True, kw_only=True)
class ConfigDriveOptions:
    mkisofs_cmd: str | None = option(
        None, "Program that builds config drives (genisoimage, mkisofs, or xorrisofs); unset builds them in process."
    )
    force: bool = option(True, "Give every instance a config drive unless its request says no.")
    format: str = option(
        "iso9660",
        "What is on a config drive: iso9660 (a CD-ROM in the guest) or vfat (a disk of 64 MiB, made with mtools).",
        choices=("iso9660", "vfat"),
    )
    skip_versions: tuple[str, ...] = option(
        (
            "1.0",
            "2007-01-19",
            "2007-03-01",
            "2007-08-29",
            "2007-10-10",
            "2007-12-15",
            "2008-02-01",
            "2008-09-01",
        ),
        "Versions of the EC2 and OpenStack trees that are left out of config drives.",
    )
    vendor_data: Path | None = option(None, "File with a JSON object that every guest gets as its vendor data.")
    network_template: Path | None = option(
        None,
        "Template of the guests' /etc/network/interfaces, in the syntax of Python's string.Template; what stands below "
        "a line %% is repeated for every address. Unset takes the one that is built in.",
    )


@dataclass(frozen=True, kw_only=True)
class InjectionOptions:
    """Files that are written into a guest's disk before it starts, where it gets no config drive."""

    partition: int = option(
        -2,
        "Where guests' files are written: -2 nowhere, -1 the root file system that is found, 0 the whole disk, "
        "otherwise the number of a partition.",
        low=-2,
        high=128,
    )
    method: str = option(
        "auto",
        "How: fuse (mounted by this kernel in a namespace of its own; root), debugfs (clean ext4, not mounted), "
        "libguestfs (a small virtual machine; slow), or auto: the first of these that can.",
        choices=("auto", "fuse", "debugfs", "libguestfs"),
    )
    key: bool = option(True, "Write the ssh keys to the authorized_keys of root.")
    network: bool = option(True, "Write the addresses to /etc/network/interfaces.")
    metadata: bool = option(True, "Write the metadata to /meta.js.")
    files: bool = option(True, "Write the files of the request.")
    admin_password: bool = option(False, "Set the administrator's password in /etc/shadow.")
    mandatory: tuple[str, ...] = option(
        ("files",),
        "What must not fail (key, network, metadata, files, admin_password); the rest is a warning.",
        pattern=r"key|network|metadata|files|admin_password",
        wanted="key, network, metadata, files or admin_password",
    )
    guestfs_backend: str = option(
        "direct", "LIBGUESTFS_BACKEND for libguestfs.", pattern=r"[a-z][a-z0-9:/._-]{0,254}", wanted="a backend"
    )
    guestfs_emulated: bool = option(False, "Never let libguestfs use /dev/kvm.")

    def items(self) -> tuple[str, ...]:
        """Names of what is switched on."""
        names = ("key", "network", "metadata", "admin_password", "files")
        return tuple(name for name in names if getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class QuotaOptions:
    """Defaults for projects without a limit of their own."""

    instances: int = option(20, "Instances per project; -1 is unlimited.", low=-1, high=1000000)
    vcpus: int = option(64, "Virtual CPUs per project; -1 is unlimited.", low=-1, high=1000000)
    memory_mib: int = option(131072, "Memory per project in MiB; -1 is unlimited.", low=-1, high=2**40)
    disk_gib: int = option(2000, "Disk space per project in GiB; -1 is unlimited.", low=-1, high=2**40)
    volumes: int = option(100, "Volumes per project; -1 is unlimited.", low=-1, high=1000000)
    volume_gib: int = option(
        10000, "Size of all volumes and snapshots per project in GiB; -1 is unlimited.", low=-1, high=2**40
    )
    server_group_members: int = option(10, "Instances per server group; -1 is unlimited.", low=-1, high=1000000)


@dataclass(frozen=True, kw_only=True)
class NotificationsOptions:
    drivers: tuple[str, ...] = option(
        ("log",), "What carries notifications: log, file, messaging (oslo.messaging), or another package's driver."
    )
    file: Path = option("$state_dir/notifications.jsonl", "File of the driver file, one JSON document per line.")
    transport_url: str | None = option(
        None,
        "Broker of the driver messaging, such as rabbit://user:password@host:5672/.",
        pattern=r"[a-z][a-z0-9+]*://.*",
        wanted="a broker's URL",
        credentials=True,
    )
    topic: str = option(
        "virtflow_notifications", "Topic of the driver messaging.", pattern=r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}"
    )


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    mode: str = option(
        "embedded",
        "Who runs operations: embedded (the process that is asked, here and now) or workers (they are posted on the "
        "job board, and `virtflow worker` on the hosts does them).",
        choices=("embedded", "workers"),
    )
    threads: int = option(8, "Threads that run the tasks of this process.", low=2, high=64)
    revert_attempts: int = option(3, "How often a revert is tried before it becomes a debt.", low=1, high=20)
    revert_backoff: float = option(
        1.0, "Seconds before the second attempt of a revert; doubles each time.", low=0, high=600
    )
    progress_interval: float = option(0.5, "Seconds between two progress records of one task.", low=0.05, high=60)


@dataclass(frozen=True, kw_only=True)
class TasksOptions:
    """Timeouts, in seconds."""

    default_timeout: float = option(
        300.0, "Seconds that a task may take when none of the others fits.", low=1, high=604800
    )
    download_timeout: float = option(
        7200.0, "Seconds that fetching and converting an image may take.", low=1, high=604800
    )
    disk_timeout: float = option(
        1800.0, "Seconds that making, growing or removing a disk may take.", low=1, high=604800
    )
    boot_timeout: float = option(120.0, "Seconds until a started domain must be running.", low=1, high=86400)

    def seconds(self) -> dict[str, float]:
        """By the name under which a task asks for it."""
        return {name.removesuffix("_timeout"): getattr(self, name) for name in type(self).__dataclass_fields__}


@dataclass(frozen=True, kw_only=True)
class SecretsOptions:
    key_file: Path = option(
        "$state_dir/secret.key", "File with the key that encrypts stored secrets; made when missing."
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    """The whole configuration. The fields up to ``log_file`` are the group [DEFAULT]."""

    state_dir: Path = option(
        None,
        "Directory of everything that virtflow keeps.",
        shown_default="/var/lib/virtflow for root, $XDG_STATE_HOME/virtflow for others",
    )
    host: str = option(
        None, "Name of this host in the database.", pattern=NAME_PATTERN, shown_default="the machine's host name"
    )
    project_name: str = option("default", "Project that instances are counted for.", pattern=NAME_PATTERN)
    debug: bool = option(False, "Log at debug level and show tracebacks.")
    log_file: Path | None = option(None, "File that log records are appended to; unset logs warnings to stderr.")
    database: DatabaseOptions
    libvirt: LibvirtOptions
    images: ImagesOptions
    glance: GlanceOptions
    instances: InstancesOptions
    network: NetworkOptions
    config_drive: ConfigDriveOptions
    injection: InjectionOptions
    quota: QuotaOptions
    notifications: NotificationsOptions
    engine: EngineOptions
    jobboard: JobboardOptions
    scheduler: SchedulerOptions
    worker: WorkerOptions
    volumes: VolumesOptions
    resize: ResizeOptions
    live_migration: MigrationOptions
    tasks: TasksOptions
    secrets: SecretsOptions
    sources: Mapping[tuple[str, str], str] = field(repr=False, compare=False)
    """Origin of each (group, option): default, file:PATH, environment or command line."""
    warnings: tuple[str, ...] = field(default=(), compare=False)
    """Settings that were found but name no option: one line each."""

    @property
    def project(self) -> str:
        """The project (oslo.config keeps the name ``project`` for itself, hence ``project_name`` in the file)."""
        return self.project_name

    def origins(self) -> Mapping[tuple[str, str], str]:
        """Where the value of each (group, option) came from."""
        return self.sources
