"""Storages, datasets, fingerprints, splits and preprocessing: what a module learns from."""
