"""The dataset of a coordinator that has none."""

from __future__ import annotations

from pytorch_lightning import LightningDataModule

__all__ = ["NoData"]


class NoData(LightningDataModule):
    """No samples at all: only sites validate, and the global module is packaged if it knows an example of its input."""
