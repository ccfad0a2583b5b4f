"""Finding the command, running it, and ending with the right status."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence

from ai4sdk._version import __version__

__all__ = ["COMMANDS", "main"]

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("run", "run a config or a plan"),
    "plan": ("plan", "show what would run, check it, write it to a file"),
    "diff": ("diff", "say how two plans or runs differ in what matters"),
    "why": ("why", "show where a value comes from"),
    "ps": ("runs", "list runs"),
    "status": ("runs", "tell how a run stands"),
    "logs": ("runs", "show what a run printed"),
    "report": ("runs", "draw the report of a run"),
    "cancel": ("runs", "stop a run with a checkpoint"),
    "resume": ("runs", "go on with a run that was interrupted, cancelled or failed"),
    "rerun": ("runs", "run the plan of a run again"),
    "federated": ("federated", "lead a federation between institutions, or join one"),
    "oscar": ("oscar", "let trained models answer on a cluster that OSCAR manages"),
    "study": ("study", "show, list, resume and cancel studies (`run -m` starts one)"),
    "predict": ("predict", "let a trained model predict"),
    "serve": ("serve", "serve trained models over HTTP"),
    "deepaas": ("deepaas", "call and train modules written for DEEPaaS, in their own environments"),
    "drift": ("drift", "say whether data are still what a model was trained on"),
    "fetch": ("runs", "bring what a run left elsewhere"),
    "sync": ("runs", "send to MLflow what could not be sent yet"),
    "verify": ("verify", "check by trying: does a job give the same with several processes?"),
    "configs": ("configs", "list config groups and their options"),
    "modules": ("modules", "list modules and what they are for"),
    "schema": ("schema", "print the JSON Schema of a job, or write those of all groups"),
    "init": ("init", "start a project of your own"),
}
"""Command → (module in ai4sdk.cli, one line of help)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        Arguments without the program's name; by default those of this process.

    Returns
    -------
    int
        Exit status; see `ai4sdk.errors`.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _dispatch(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Whoever read our output has gone; that is no error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"ai4sdk {__version__}")
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        if "=" in name:
            near = ["run " + name]
        hint = f"ai4sdk {near[0]}" if near else "ai4sdk --help lists the commands"
        print(f"there is no command {name!r}\n  → {hint}", file=sys.stderr)
        return 2

    import importlib

    from ai4sdk.errors import Ai4Error

    try:
        module = importlib.import_module(f"ai4sdk.cli.{COMMANDS[name][0]}")
        return int(module.main(name, arguments[1:]))
    except Ai4Error as error:
        print(_coloured(str(error)), file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, BrokenPipeError, SystemExit):
        raise
    except Exception as error:  # noqa: BLE001 - the last resort: a defect of ours, told as one
        return _defect(error)


def _coloured(text: str) -> str:
    if not sys.stderr.isatty() or os.environ.get("NO_COLOR"):
        return text
    return "\n".join(f"\033[32m{line}\033[0m" if line.lstrip().startswith("→") else line for line in text.splitlines())


def _defect(error: BaseException) -> int:
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="ai4sdk-", suffix=".txt", delete=False, encoding="utf-8") as file:
        file.write(f"ai4sdk {__version__}\n{sys.argv}\n")
        traceback.print_exception(error, file=file)
    print(
        f"a defect of ai4sdk: {type(error).__name__}: {error}\n  → please report it with {file.name}", file=sys.stderr
    )
    return 1


def _help() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {text}" for name, (_, text) in COMMANDS.items())
    return (
        "usage: ai4sdk COMMAND ...\n\n"
        "Describe a piece of machine learning once, in YAML, and run it anywhere.\n\n"
        f"{commands}\n\n"
        "  ai4sdk run config=quickstart              train, evaluate and package a first model\n"
        "  ai4sdk run config=quickstart seed=7       the same with another seed\n"
        "  ai4sdk COMMAND --help                     more on a command"
    )
