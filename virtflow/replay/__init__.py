"""The third use: what an operation did, read from its recording. Nothing changes unless a verb says so."""
