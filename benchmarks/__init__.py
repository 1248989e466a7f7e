"""Measurements behind the choices of the code; run one with `python -m benchmarks.<name>`."""
