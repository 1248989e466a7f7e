"""Measurements behind the choices of the code; `python -m benchmarks` lists them, and runs those that are named."""
