"""The atomic tasks, a file per thing they touch. Each makes one thing and can take it back."""

from virtflow import eventletless  # noqa: F401 - before TaskFlow
