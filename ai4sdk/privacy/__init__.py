"""Differential privacy: what a federation spends, and what was spent on a dataset so far."""
