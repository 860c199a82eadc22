"""The second use: a daemon on every host that takes jobs from a board. What dies here loses nothing."""
