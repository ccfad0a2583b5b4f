"""`ai4sdk deepaas`: modules written for DEEPaaS, without a server."""

from __future__ import annotations

from collections.abc import Sequence

from ai4sdk.cli.actions import act

EPILOG = """\
actions:
  show NAME config=CONFIG                        tell what a module is and which arguments it takes
  predict NAME config=CONFIG [ARGUMENT=VALUE …]  let it predict
  train NAME config=CONFIG [ARGUMENT=VALUE …]    train it, and watch that to its end
  trainings NAME config=CONFIG                   list its trainings, those that were started over HTTP, too
  cancel NAME TRAINING config=CONFIG             stop a training; take away one that has ended

NAME is one of serving.modules of the config; it may be left out where there is one only. `ai4sdk serve config=CONFIG`
serves them all. `ai4sdk deepaas ACTION --help` says more.
"""
ACTIONS = {
    "show": ("ai4sdk.cli.deepaas_call", "show"),
    "predict": ("ai4sdk.cli.deepaas_call", "predict"),
    "train": ("ai4sdk.cli.deepaas_train", "train"),
    "trainings": ("ai4sdk.cli.deepaas_train", "trainings"),
    "cancel": ("ai4sdk.cli.deepaas_train", "cancel"),
}
"""Action → module and function that does it."""


def main(command: str, argv: Sequence[str]) -> int:
    """Do one of the actions."""
    description = "Call and train modules written for DEEPaaS, in their own environments."
    return act(command, argv, ACTIONS, description=description, epilog=EPILOG)
