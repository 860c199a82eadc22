"""How fast virtflow is, as ratios to others measured in the same run: ``python -m benchmarks [NAME...]``."""
