"""Predict one column of a table from the others."""

from tabular_mlp.mlp import TabularMLP
from tabular_mlp.scaling import RunningScale

__all__ = ["RunningScale", "TabularMLP"]
