"""`ai4sdk run`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ai4sdk.backends.launch import start_run
from ai4sdk.cli.arguments import Parser, split_config
from ai4sdk.config.load import load_job
from ai4sdk.config.project import find_project
from ai4sdk.errors import UsageError
from ai4sdk.planning.build import make_plan
from ai4sdk.planning.plan import Plan, read_plan_file

EPILOG = """\
examples:
  ai4sdk run config=quickstart
  ai4sdk run config=quickstart training.max_epochs=3 optimizer.lr=1e-3
  ai4sdk run config=my/job.yaml --detach
  ai4sdk run --plan plan.json
"""


def main(command: str, argv: Sequence[str]) -> int:
    """Run a config or a plan."""
    parser = Parser(command, "Run a config or a plan on its backend.", EPILOG)
    parser.add_argument(
        "overrides", nargs="*", metavar="config=NAME KEY=VALUE", help="config and overrides (Hydra's grammar)"
    )
    parser.add_argument("--plan", metavar="FILE", help="run exactly this plan")
    parser.add_argument("-d", "--detach", action="store_true", help="return at once; see `ai4sdk ps`, `ai4sdk logs -f`")
    args = parser.parse(argv)
    project = find_project()
    plan = _plan(args.plan, args.overrides, [command, *argv])
    run = start_run(plan, project.root)
    if args.detach:
        print(run.id)
        print(f"  → ai4sdk logs -f {run.id}", file=sys.stderr)
        return 0
    from ai4sdk.cli.watch import watch

    return watch(run, plan)


def _plan(file: str | None, words: Sequence[str], command: list[str]) -> Plan:
    if file is None:
        config, overrides = split_config(command[0], words)
        return make_plan(load_job(config, overrides), command=["ai4sdk", *command])
    if words:
        raise UsageError(
            f"a plan is run as it is; {words[0]} cannot be given with --plan",
            hint="plan again with the override: ai4sdk plan config=NAME " + words[0],
        )
    return read_plan_file(Path(file))
