"""Tables of what virtflow looks after: instances, hosts, images in use, networks and ports, quotas, secrets.

Columns that must be unique together are bounded so that MariaDB can index them (3072 bytes, four per character).
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from virtflow.persistence.models.base import MICROSECONDS, NAME, UUID, PlainJSON, metadata

instances = Table(
    "instances",
    metadata,
    Column("uuid", UUID, primary_key=True),
    Column("name", NAME, nullable=False),
    Column("live_name", NAME, nullable=True),
    Column("project", NAME, nullable=False),
    Column("host", NAME, nullable=True),
    Column("vm_state", String(32), nullable=False),
    Column("task_state", String(64), nullable=True),
    Column("vcpus", Integer, nullable=False),
    Column("memory_mib", Integer, nullable=False),
    Column("disk_gib", Integer, nullable=False),
    Column("image_id", NAME, nullable=True),
    Column("image_name", NAME, nullable=True),
    Column("flavor", NAME, nullable=True),
    Column("meta", PlainJSON, nullable=False),
    Column("operation", UUID, nullable=False),
    Column("fault", Text, nullable=True),
    Column("created_at", MICROSECONDS, nullable=False),
    Column("launched_at", MICROSECONDS, nullable=True),
    Column("deleted_at", MICROSECONDS, nullable=True),
    Column("deleted_by", UUID, nullable=True),
    UniqueConstraint("project", "live_name"),
    Index("ix_instances_name", "name"),
    Index("ix_instances_operation", "operation"),
)
"""One row per instance, kept when it is deleted. ``live_name`` is the name while it lives and null afterwards: nulls
never collide, so the database itself guarantees one live instance of a name per project."""

hosts = Table(
    "hosts",
    metadata,
    Column("name", NAME, primary_key=True),
    Column("vcpus", Integer, nullable=False),
    Column("memory_mib", Integer, nullable=False),
    Column("disk_gib", Integer, nullable=False),
    Column("cpu_ratio", Float, nullable=False),
    Column("memory_ratio", Float, nullable=False),
    Column("disk_ratio", Float, nullable=False),
    Column("vcpus_used", Integer, nullable=False),
    Column("memory_mib_used", Integer, nullable=False),
    Column("disk_gib_used", Integer, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("zone", NAME, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("disabled_reason", Text, nullable=True),
    Column("draining", Boolean, nullable=False),
    Column("worker", Text, nullable=True),
    Column("heartbeat_at", MICROSECONDS, nullable=True),
    Column("uri", Text, nullable=True),
    Column("labels", PlainJSON, nullable=False),
    Column("capabilities", PlainJSON, nullable=False),
    Column("updated_at", MICROSECONDS, nullable=False),
)
"""What each host has, and what its worker says of it. ``generation`` rises with every change of the host's inventory or
of its allocations; ``*_used`` is the sum of these, changed together with them: a decision over a thousand hosts reads a
thousand rows, however many instances there are.

``state`` is UP or DOWN; ``worker`` is the owner of the heartbeat, null for a host that only an embedded runner uses.
"""

allocations = Table(
    "allocations",
    metadata,
    Column("consumer", UUID, primary_key=True),
    Column("host", NAME, ForeignKey("hosts.name"), primary_key=True),
    Column("operation", UUID, nullable=False),
    Column("vcpus", Integer, nullable=False),
    Column("memory_mib", Integer, nullable=False),
    Column("disk_gib", Integer, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("created_at", MICROSECONDS, nullable=False),
    Index("ix_allocations_host", "host"),
)
"""What each instance (consumer) holds of a host. During a move it has one on each of two hosts.

``generation`` is the host's after the claim: of two claims on one host, the one with the lower was committed first.
"""

server_groups = Table(
    "server_groups",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("name", NAME, nullable=False),
    Column("project", NAME, nullable=False),
    Column("policy", String(32), nullable=False),
    Column("created_at", MICROSECONDS, nullable=False),
    UniqueConstraint("project", "name"),
)
"""Instances that must, or must not, share a host."""

server_group_members = Table(
    "server_group_members",
    metadata,
    Column("instance", UUID, primary_key=True),
    Column("group_id", UUID, ForeignKey("server_groups.id"), nullable=False),
    Column("operation", UUID, nullable=False),
    Column("created_at", MICROSECONDS, nullable=False),
    Index("ix_server_group_members_group_id", "group_id"),
)
"""A row outlives its instance's deletion, so that undoing the delete brings the membership back: only live instances
count."""

flavors = Table(
    "flavors",
    metadata,
    Column("name", NAME, primary_key=True),
    Column("vcpus", Integer, nullable=False),
    Column("memory_mib", Integer, nullable=False),
    Column("disk_gib", Integer, nullable=False),
    Column("properties", PlainJSON, nullable=False),
)

base_references = Table(
    "base_references",
    metadata,
    Column("base_path", String(440), primary_key=True),
    Column("host", NAME, primary_key=True),
    Column("consumer", UUID, primary_key=True),
    Column("image_id", NAME, nullable=False),
    Column("operation", UUID, nullable=False),
    Column("created_at", MICROSECONDS, nullable=False),
    Index("ix_base_references_host", "host"),
)
"""Which instance's disk is backed by which base in a host's image cache: a base with a row may not be pruned."""

networks = Table(
    "networks",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("name", NAME, nullable=False, unique=True),
    Column("cidr", String(64), nullable=False),
    Column("gateway", String(45), nullable=True),
    Column("dns", PlainJSON, nullable=False),
    Column("bridge", String(15), nullable=False),
    Column("mtu", Integer, nullable=False),
    Column("managed_bridge", Boolean, nullable=False),
    Column("allocation_start", String(45), nullable=True),
    Column("allocation_end", String(45), nullable=True),
    Column("created_at", MICROSECONDS, nullable=False),
)

ports = Table(
    "ports",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("network_id", UUID, ForeignKey("networks.id"), nullable=False),
    Column("instance", UUID, nullable=False),
    Column("operation", UUID, nullable=False),
    Column("address", String(45), nullable=False),
    Column("mac", String(17), nullable=False, unique=True),
    Column("tap", String(15), nullable=False),
    Column("host", NAME, nullable=True),
    Column("created_at", MICROSECONDS, nullable=False),
    UniqueConstraint("network_id", "address"),
    Index("ix_ports_instance", "instance"),
)

vif_events = Table(
    "vif_events",
    metadata,
    Column("port", UUID, ForeignKey("ports.id", ondelete="CASCADE"), primary_key=True),
    Column("instance", UUID, nullable=False),
    Column("state", String(16), nullable=False),
    Column("updated_at", MICROSECONDS, nullable=False),
    Index("ix_vif_events_instance", "instance"),
)
"""Whether a port's cable is in: EXPECTED, PLUGGED or FAILED. Who plugs it may say so before anybody expects it.

What was said about a port goes with the port.
"""

quota_projects = Table("quota_projects", metadata, Column("project", NAME, primary_key=True))
"""One row per project, locked by whoever changes the project's limits or charges."""

quota_limits = Table(
    "quota_limits",
    metadata,
    Column("project", NAME, primary_key=True),
    Column("resource", String(32), primary_key=True),
    Column("maximum", BigInteger, nullable=False),
)
"""Limits that differ from the configured defaults; -1 is unlimited."""

quota_charges = Table(
    "quota_charges",
    metadata,
    Column("consumer", UUID, primary_key=True),
    Column("resource", String(32), primary_key=True),
    Column("project", NAME, nullable=False),
    Column("operation", UUID, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("updated_at", MICROSECONDS, nullable=False),
    Index("ix_quota_charges_project", "project"),
)
"""What each instance is charged with. State: RESERVED, COMMITTED, RELEASED (deleted, but can still be undone)."""

secrets = Table(
    "secrets",
    metadata,
    Column("ref", String(64), primary_key=True),
    Column("owner", UUID, nullable=False),
    Column("name", NAME, nullable=False),
    Column("ciphertext", LargeBinary(2**24), nullable=False),
    Column("created_at", MICROSECONDS, nullable=False),
    Index("ix_secrets_owner", "owner"),
)
"""Encrypted values. ``owner`` is an operation, which needs them until it ends, or what lives longer and takes them
along when it goes: a volume, a snapshot, an attachment. The key is a file on the host, never in the database."""
