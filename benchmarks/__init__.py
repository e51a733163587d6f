"""Figures of the README, each a ratio measured in one run against what a user does today: ``python -m benchmarks``."""
