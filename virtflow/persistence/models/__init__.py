"""All tables. Importing this package is what makes ``metadata`` complete (migrations compare against it)."""

from virtflow.persistence.models import decisions, engine, inventory, jobs, segments, specs, volumes
from virtflow.persistence.models.base import metadata

__all__ = ["decisions", "engine", "inventory", "jobs", "metadata", "segments", "specs", "volumes"]
