"""Everything: operations, flows, placement, networks, quotas, secrets."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# As in models/base.py at the time of this revision: a revision must not change when the models do.
JSON = sa.Text().with_variant(sa.Text(2**24), "mysql", "mariadb")
IDENTITY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _operations()
    _flows()
    _placement()
    _jobs()
    _volumes()
    _networks_and_quotas()


def downgrade() -> None:
    for table in (
        "vif_events",
        "server_group_members",
        "ports",
        "server_groups",
        "secrets",
        "quota_projects",
        "quota_limits",
        "quota_charges",
        "networks",
        "instance_specs",
        "decisions",
        "volume_snapshots",
        "volume_attachments",
        "volumes",
        "volume_types",
        "volume_backends",
        "jobs",
        "job_entities",
        "allocations",
        "instances",
        "hosts",
        "flavors",
        "base_references",
        "journal",
        "atoms",
        "flows",
        "logbooks",
        "targets",
        "segments",
        "operations",
        "ledger",
        "claims",
    ):
        op.drop_table(table)


def _operations() -> None:
    op.create_table(
        "claims",
        sa.Column("subject", sa.String(length=36), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=True),
        sa.Column("touched_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subject", name=op.f("pk_claims")),
    )
    op.create_table(
        "ledger",
        sa.Column("id", IDENTITY, autoincrement=True, nullable=False),
        sa.Column("operation", sa.String(length=36), nullable=False),
        sa.Column("flow", sa.String(length=36), nullable=False),
        sa.Column("task", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("identity", sa.String(length=440), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("detail", JSON, nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger")),
        sa.UniqueConstraint("flow", "task", "kind", "identity", name=op.f("uq_ledger_flow_task_kind_identity")),
    )
    op.create_index("ix_ledger_operation", "ledger", ["operation"], unique=False)
    op.create_index("ix_ledger_state", "ledger", ["state"], unique=False)
    op.create_table(
        "operations",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("target", sa.String(length=255), nullable=False),
        sa.Column("request", JSON, nullable=False),
        sa.Column("project", sa.String(length=255), nullable=False),
        sa.Column("parent", sa.String(length=36), nullable=True),
        sa.Column("group", sa.String(length=36), nullable=True),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("state", sa.String(length=24), nullable=False),
        sa.Column("outcome", sa.String(length=24), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("cancel_requested", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operations")),
        sa.UniqueConstraint("number", name=op.f("uq_operations_number")),
        sa.UniqueConstraint("project", "idempotency_key", name=op.f("uq_operations_project_idempotency_key")),
    )
    op.create_index("ix_operations_finished", "operations", ["finished_at"], unique=False)
    op.create_index("ix_operations_group", "operations", ["group"], unique=False)
    op.create_index("ix_operations_outcome", "operations", ["outcome"], unique=False)
    op.create_index("ix_operations_parent", "operations", ["parent"], unique=False)
    op.create_index("ix_operations_state", "operations", ["state", "created_at"], unique=False)
    op.create_index("ix_operations_target", "operations", ["target"], unique=False)
    op.create_table(
        "segments",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("operation", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("verb", sa.String(length=8), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("inputs", JSON, nullable=False),
        sa.Column("outputs", JSON, nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("retry_elsewhere", sa.Boolean(), nullable=False),
        sa.Column("debts", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["operation"], ["operations.id"], name=op.f("fk_segments_operation"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_segments")),
    )
    op.create_index("ix_segments_host_state", "segments", ["host", "state"], unique=False)
    op.create_index("ix_segments_operation", "segments", ["operation"], unique=False)
    op.create_index("ix_segments_state", "segments", ["state"], unique=False)
    op.create_table(
        "targets",
        sa.Column("target", sa.String(length=255), nullable=False),
        sa.Column("operation", sa.String(length=36), nullable=False),
        sa.ForeignKeyConstraint(
            ["operation"], ["operations.id"], name=op.f("fk_targets_operation"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("target", name=op.f("pk_targets")),
    )
    op.create_index("ix_targets_operation", "targets", ["operation"], unique=False)


def _flows() -> None:
    op.create_table(
        "logbooks",
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=True),
        sa.Column("meta", JSON, nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=True),
        sa.Column("updated_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("uuid", name=op.f("pk_logbooks")),
    )
    op.create_table(
        "flows",
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("logbook", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=True),
        sa.Column("state", sa.String(length=24), nullable=True),
        sa.Column("meta", JSON, nullable=True),
        sa.ForeignKeyConstraint(["logbook"], ["logbooks.uuid"], name=op.f("fk_flows_logbook"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("uuid", name=op.f("pk_flows")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_flows_logbook", "flows", ["logbook"], unique=False)
    op.create_table(
        "atoms",
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("flow", sa.String(length=36), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("version", sa.String(length=16), nullable=True),
        sa.Column("state", sa.String(length=24), nullable=True),
        sa.Column("intention", sa.String(length=16), nullable=True),
        sa.Column("meta", JSON, nullable=True),
        sa.Column("results", JSON, nullable=True),
        sa.Column("failure", JSON, nullable=True),
        sa.Column("revert_results", JSON, nullable=True),
        sa.Column("revert_failure", JSON, nullable=True),
        sa.ForeignKeyConstraint(["flow"], ["flows.uuid"], name=op.f("fk_atoms_flow"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("uuid", name=op.f("pk_atoms")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_atoms_flow", "atoms", ["flow", "position"], unique=False)
    op.create_table(
        "journal",
        sa.Column("flow", sa.String(length=36), nullable=False),
        sa.Column("sequence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("atom", sa.String(length=255), nullable=True),
        sa.Column("event", sa.String(length=24), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=True),
        sa.Column("data", JSON, nullable=True),
        sa.ForeignKeyConstraint(["flow"], ["flows.uuid"], name=op.f("fk_journal_flow"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("flow", "sequence", name=op.f("pk_journal")),
        sqlite_with_rowid=False,
    )


def _placement() -> None:
    op.create_table(
        "base_references",
        sa.Column("base_path", sa.String(length=440), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("consumer", sa.String(length=36), nullable=False),
        sa.Column("image_id", sa.String(length=255), nullable=False),
        sa.Column("operation", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("base_path", "host", "consumer", name=op.f("pk_base_references")),
    )
    op.create_index("ix_base_references_host", "base_references", ["host"], unique=False)
    op.create_table(
        "flavors",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("vcpus", sa.Integer(), nullable=False),
        sa.Column("memory_mib", sa.Integer(), nullable=False),
        sa.Column("disk_gib", sa.Integer(), nullable=False),
        sa.Column("properties", JSON, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_flavors")),
    )
    op.create_table(
        "hosts",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("vcpus", sa.Integer(), nullable=False),
        sa.Column("memory_mib", sa.Integer(), nullable=False),
        sa.Column("disk_gib", sa.Integer(), nullable=False),
        sa.Column("cpu_ratio", sa.Float(), nullable=False),
        sa.Column("memory_ratio", sa.Float(), nullable=False),
        sa.Column("disk_ratio", sa.Float(), nullable=False),
        sa.Column("vcpus_used", sa.Integer(), nullable=False),
        sa.Column("memory_mib_used", sa.Integer(), nullable=False),
        sa.Column("disk_gib_used", sa.Integer(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("zone", sa.String(length=255), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.Column("draining", sa.Boolean(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("heartbeat_at", sa.BigInteger(), nullable=True),
        sa.Column("uri", sa.Text(), nullable=True),
        sa.Column("labels", JSON, nullable=False),
        sa.Column("capabilities", JSON, nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_hosts")),
    )
    op.create_table(
        "instances",
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("live_name", sa.String(length=255), nullable=True),
        sa.Column("project", sa.String(length=255), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=True),
        sa.Column("vm_state", sa.String(length=32), nullable=False),
        sa.Column("task_state", sa.String(length=64), nullable=True),
        sa.Column("vcpus", sa.Integer(), nullable=False),
        sa.Column("memory_mib", sa.Integer(), nullable=False),
        sa.Column("disk_gib", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.String(length=255), nullable=True),
        sa.Column("image_name", sa.String(length=255), nullable=True),
        sa.Column("flavor", sa.String(length=255), nullable=True),
        sa.Column("meta", JSON, nullable=False),
        sa.Column("operation", sa.String(length=36), nullable=False),
        sa.Column("fault", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("launched_at", sa.BigInteger(), nullable=True),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.Column("deleted_by", sa.String(length=36), nullable=True),
        sa.PrimaryKeyConstraint("uuid", name=op.f("pk_instances")),
        sa.UniqueConstraint("project", "live_name", name=op.f("uq_instances_project_live_name")),
    )
    op.create_index("ix_instances_name", "instances", ["name"], unique=False)
    op.create_index("ix_instances_operation", "instances", ["operation"], unique=False)
    op.create_table(
        "allocations",
        sa.Column("consumer", sa.String(length=36), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("operation", sa.String(length=36), nullable=False),
        sa.Column("vcpus", sa.Integer(), nullable=False),
        sa.Column("memory_mib", sa.Integer(), nullable=False),
        sa.Column("disk_gib", sa.Integer(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["host"], ["hosts.name"], name=op.f("fk_allocations_host")),
        sa.PrimaryKeyConstraint("consumer", "host", name=op.f("pk_allocations")),
    )
    op.create_index("ix_allocations_host", "allocations", ["host"], unique=False)


def _jobs() -> None:
    op.create_table(
        "job_entities",
        sa.Column("topic", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("details", JSON, nullable=True),
        sa.Column("registered_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("topic", "kind", "name", name=op.f("pk_job_entities")),
    )
    op.create_table(
        "jobs",
        sa.Column("id", IDENTITY, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("topic", sa.String(length=255), nullable=False),
        sa.Column("operation", sa.String(length=36), nullable=True),
        sa.Column("segment", sa.String(length=36), nullable=True),
        sa.Column("payload", JSON, nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=True),
        sa.Column("owner", sa.String(length=255), nullable=True),
        sa.Column("claim", sa.BigInteger(), nullable=False),
        sa.Column("claimed_at", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("again", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("name", name=op.f("uq_jobs_name")),
    )
    op.create_index("ix_jobs_claimable", "jobs", ["topic", "place", "created_at", "id"], unique=False)
    op.create_index("ix_jobs_due", "jobs", ["due_at"], unique=False)


def _volumes() -> None:
    op.create_table(
        "volume_backends",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("driver", sa.String(length=255), nullable=False),
        sa.Column("zone", sa.String(length=255), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("total_gib", sa.Integer(), nullable=False),
        sa.Column("capabilities", JSON, nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_volume_backends")),
    )
    op.create_table(
        "volume_types",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("capabilities", JSON, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_volume_types")),
    )
    op.create_table(
        "volumes",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("live_name", sa.String(length=255), nullable=True),
        sa.Column("project", sa.String(length=255), nullable=False),
        sa.Column("size_gib", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("held_by", sa.String(length=36), nullable=True),
        sa.Column("resting", sa.String(length=32), nullable=True),
        sa.Column("backend", sa.String(length=255), nullable=True),
        sa.Column("host", sa.String(length=255), nullable=True),
        sa.Column("type", sa.String(length=255), nullable=True),
        sa.Column("zone", sa.String(length=255), nullable=True),
        sa.Column("bootable", sa.Boolean(), nullable=False),
        sa.Column("encryption", sa.String(length=16), nullable=True),
        sa.Column("source", JSON, nullable=False),
        sa.Column("meta", JSON, nullable=False),
        sa.Column("operation", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.Column("deleted_by", sa.String(length=36), nullable=True),
        sa.Column("purged_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_volumes")),
        sa.UniqueConstraint("project", "live_name", name=op.f("uq_volumes_project_live_name")),
    )
    op.create_index("ix_volumes_backend", "volumes", ["backend"], unique=False)
    op.create_table(
        "volume_attachments",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("volume", sa.String(length=36), nullable=False),
        sa.Column("instance", sa.String(length=36), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("device", sa.String(length=255), nullable=True),
        sa.Column("connection", JSON, nullable=True),
        sa.Column("delete_volume", sa.Boolean(), nullable=False),
        sa.Column("operation", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["volume"], ["volumes.id"], name=op.f("fk_volume_attachments_volume")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_volume_attachments")),
        sa.UniqueConstraint("volume", name=op.f("uq_volume_attachments_volume")),
    )
    op.create_index("ix_volume_attachments_instance", "volume_attachments", ["instance"], unique=False)
    op.create_index("ix_volume_attachments_host", "volume_attachments", ["host"], unique=False)
    op.create_table(
        "volume_snapshots",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("live_name", sa.String(length=255), nullable=True),
        sa.Column("project", sa.String(length=255), nullable=False),
        sa.Column("volume", sa.String(length=36), nullable=False),
        sa.Column("size_gib", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("held_by", sa.String(length=36), nullable=True),
        sa.Column("resting", sa.String(length=32), nullable=True),
        sa.Column("backend", sa.String(length=255), nullable=True),
        sa.Column("host", sa.String(length=255), nullable=True),
        sa.Column("bootable", sa.Boolean(), nullable=False),
        sa.Column("encryption", sa.String(length=16), nullable=True),
        sa.Column("operation", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.Column("deleted_by", sa.String(length=36), nullable=True),
        sa.Column("purged_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["volume"], ["volumes.id"], name=op.f("fk_volume_snapshots_volume")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_volume_snapshots")),
        sa.UniqueConstraint("project", "live_name", name=op.f("uq_volume_snapshots_project_live_name")),
    )
    op.create_index("ix_volume_snapshots_volume", "volume_snapshots", ["volume"], unique=False)


def _networks_and_quotas() -> None:
    op.create_table(
        "decisions",
        sa.Column("id", IDENTITY, autoincrement=True, nullable=False),
        sa.Column("operation", sa.String(length=36), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("chosen", sa.String(length=255), nullable=True),
        sa.Column("document", JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_decisions")),
    )
    op.create_index("ix_decisions_at", "decisions", ["at"], unique=False)
    op.create_index("ix_decisions_chosen", "decisions", ["chosen", "at"], unique=False)
    op.create_index("ix_decisions_operation", "decisions", ["operation"], unique=False)
    op.create_table(
        "instance_specs",
        sa.Column("instance", sa.String(length=36), nullable=False),
        sa.Column("operation", sa.String(length=36), nullable=False),
        sa.Column("spec", JSON, nullable=False),
        sa.Column("previous_spec", JSON, nullable=True),
        sa.Column("previous_host", sa.String(length=255), nullable=True),
        sa.PrimaryKeyConstraint("instance", name=op.f("pk_instance_specs")),
    )
    op.create_table(
        "networks",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("cidr", sa.String(length=64), nullable=False),
        sa.Column("gateway", sa.String(length=45), nullable=True),
        sa.Column("dns", JSON, nullable=False),
        sa.Column("bridge", sa.String(length=15), nullable=False),
        sa.Column("mtu", sa.Integer(), nullable=False),
        sa.Column("managed_bridge", sa.Boolean(), nullable=False),
        sa.Column("allocation_start", sa.String(length=45), nullable=True),
        sa.Column("allocation_end", sa.String(length=45), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_networks")),
        sa.UniqueConstraint("name", name=op.f("uq_networks_name")),
    )
    op.create_table(
        "quota_charges",
        sa.Column("consumer", sa.String(length=36), nullable=False),
        sa.Column("resource", sa.String(length=32), nullable=False),
        sa.Column("project", sa.String(length=255), nullable=False),
        sa.Column("operation", sa.String(length=36), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("consumer", "resource", name=op.f("pk_quota_charges")),
    )
    op.create_index("ix_quota_charges_project", "quota_charges", ["project"], unique=False)
    op.create_table(
        "quota_limits",
        sa.Column("project", sa.String(length=255), nullable=False),
        sa.Column("resource", sa.String(length=32), nullable=False),
        sa.Column("maximum", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "resource", name=op.f("pk_quota_limits")),
    )
    op.create_table(
        "quota_projects",
        sa.Column("project", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("project", name=op.f("pk_quota_projects")),
    )
    op.create_table(
        "secrets",
        sa.Column("ref", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(length=16777216), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("ref", name=op.f("pk_secrets")),
    )
    op.create_index("ix_secrets_owner", "secrets", ["owner"], unique=False)
    op.create_table(
        "server_groups",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("project", sa.String(length=255), nullable=False),
        sa.Column("policy", sa.String(length=32), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_server_groups")),
        sa.UniqueConstraint("project", "name", name=op.f("uq_server_groups_project_name")),
    )
    op.create_table(
        "ports",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("network_id", sa.String(length=36), nullable=False),
        sa.Column("instance", sa.String(length=36), nullable=False),
        sa.Column("operation", sa.String(length=36), nullable=False),
        sa.Column("address", sa.String(length=45), nullable=False),
        sa.Column("mac", sa.String(length=17), nullable=False),
        sa.Column("tap", sa.String(length=15), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["network_id"], ["networks.id"], name=op.f("fk_ports_network_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ports")),
        sa.UniqueConstraint("mac", name=op.f("uq_ports_mac")),
        sa.UniqueConstraint("network_id", "address", name=op.f("uq_ports_network_id_address")),
    )
    op.create_index("ix_ports_instance", "ports", ["instance"], unique=False)
    op.create_table(
        "server_group_members",
        sa.Column("instance", sa.String(length=36), nullable=False),
        sa.Column("group_id", sa.String(length=36), nullable=False),
        sa.Column("operation", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["group_id"], ["server_groups.id"], name=op.f("fk_server_group_members_group_id")),
        sa.PrimaryKeyConstraint("instance", name=op.f("pk_server_group_members")),
    )
    op.create_index("ix_server_group_members_group_id", "server_group_members", ["group_id"], unique=False)
    op.create_table(
        "vif_events",
        sa.Column("port", sa.String(length=36), nullable=False),
        sa.Column("instance", sa.String(length=36), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["port"], ["ports.id"], name=op.f("fk_vif_events_port"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("port", name=op.f("pk_vif_events")),
    )
    op.create_index("ix_vif_events_instance", "vif_events", ["instance"], unique=False)
