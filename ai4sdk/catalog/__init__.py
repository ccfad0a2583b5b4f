"""Modules one can train: which there are, what describes them, how a new one begins."""
