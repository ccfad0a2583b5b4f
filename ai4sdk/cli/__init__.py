"""The command line: one file a command family, looked at only when it is used."""

from ai4sdk.cli.app import main

__all__ = ["main"]
