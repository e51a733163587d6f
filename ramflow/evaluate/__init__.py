"""Evaluation: scores of the test split, metrics, and the baselines they are held against."""
