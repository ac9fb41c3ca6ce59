"""Benchmarks of this machine, each a program: python -m experiments.bench.NAME."""
