"""Outputs of a run: summary, results file, HTML report, metrics, health check.

Start at `summary`, which the others are made from.
"""
