"""The options of boards, of the scheduler and of workers."""

from __future__ import annotations

from dataclasses import dataclass

from virtflow.config.spec import NAME_PATTERN, option


@dataclass(frozen=True, kw_only=True)
class JobboardOptions:
    backend: str = option(
        "sql",
        "Where operations wait for workers: sql (the database itself), zookeeper, redis or etcd.",
        choices=("sql", "zookeeper", "redis", "etcd"),
    )
    url: str | None = option(
        None,
        "Server of the board, such as redis://:password@host:6379/0, zookeeper://host1:2181,host2:2181 or "
        "etcd://host:2379; sql needs none.",
        pattern=r"[a-z][a-z0-9+]*://.*",
        wanted="a board's URL",
        credentials=True,
    )
    namespace: str = option(
        "virtflow",
        "What everything on the board's server begins with, so that installations can share it.",
        pattern=r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}",
    )
    lease: float = option(
        15.0,
        "Seconds after which a worker that shows no sign of life has lost its jobs to others. It shows one every third "
        "of that.",
        low=1,
        high=3600,
    )
    max_attempts: int = option(
        5, "How often a job is claimed without being finished before it is parked.", low=1, high=1000
    )


@dataclass(frozen=True, kw_only=True)
class SchedulerOptions:
    filters: tuple[str, ...] = option(
        (
            "status",
            "availability-zone",
            "retry",
            "server-group",
            "capacity",
            "capabilities",
            "image-properties",
        ),
        "What a host must pass to be chosen, in this order; other packages' filters by their names.",
    )
    weighers: tuple[str, ...] = option(
        ("capacity", "allocated-capacity"), "What hosts that passed are compared by; the sum of their weights decides."
    )
    capacity_multiplier: float = option(
        1.0, "Weight of what a host has left. Negative: the fullest first.", low=-1000, high=1000
    )
    allocated_capacity_multiplier: float = option(
        1.0,
        "Weight of the share of a host that nobody has claimed. Negative: instances are stacked instead of spread.",
        low=-1000,
        high=1000,
    )
    host_subset_size: int = option(
        1,
        "Among how many of the best hosts one is drawn, so that decisions at the same time do not all take the same.",
        low=1,
        high=1000,
    )
    max_attempts: int = option(3, "On how many hosts an instance is tried before its operation fails.", low=1, high=100)


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    zone: str = option(
        "nova",
        "Availability zone of a host when it is registered; `virtflow host set` changes it.",
        pattern=NAME_PATTERN,
    )
    operation_threads: int = option(
        32, "How many operations one worker runs at once; most of them wait for hosts.", low=1, high=1000
    )
    segment_threads: int = option(8, "How many segments run at once on the worker's own host.", low=1, high=256)
    reconcile_interval: float = option(
        1.0, "Seconds between two looks for what lost its job, its worker or its host.", low=0.1, high=600
    )
    debt_retry: float = option(60.0, "Seconds until debts are tried again.", low=1, high=86400)
    retention_days: int = option(
        0, "Days after which finished operations without debts are forgotten; 0: never.", low=0, high=36500
    )
    metrics_port: int = option(
        0, "TCP port on 127.0.0.1 for /health and /metrics (Prometheus); 0: none.", low=0, high=65535
    )
    host_down_after: float = option(
        60.0, "Seconds without a heartbeat after which a host counts as down.", low=1, high=86400
    )
    cpu_ratio: float = option(16.0, "Virtual CPUs that may be claimed per CPU of this host.", low=0.1, high=1000)
    memory_ratio: float = option(1.5, "MiB that may be claimed per MiB of memory of this host.", low=0.1, high=1000)
    disk_ratio: float = option(4.0, "GiB that may be claimed per GiB of the file system.", low=0.1, high=1000)
