"""`ai4sdk run`: what was asked for; little is imported until that is known."""

from __future__ import annotations

from collections.abc import Sequence

from ai4sdk.cli.arguments import Parser, add_waiting_options
from ai4sdk.errors import UsageError

EPILOG = """\
examples:
  ai4sdk run config=quickstart
  ai4sdk run config=quickstart training.max_epochs=3 optimizer.lr=1e-3
  ai4sdk run config=my/job.yaml --detach
  ai4sdk run --plan plan.json
  ai4sdk run config=my/finetune.yaml backend=slurm --after pretraining
  ai4sdk run -m config=quickstart optimizer.lr=1e-2,1e-3 'seed=range(5)'     a study: every combination
"""


def main(command: str, argv: Sequence[str]) -> int:
    """Run a config or a plan."""
    parser = Parser(command, "Run a config or a plan on its backend.", EPILOG)
    parser.add_argument(
        "overrides", nargs="*", metavar="config=NAME KEY=VALUE", help="config and overrides (Hydra's grammar)"
    )
    parser.add_argument("--plan", metavar="FILE", help="run exactly this plan")
    parser.add_argument(
        "--after", metavar="RUN", action="append", default=[], help="begin once that run has succeeded (on Slurm)"
    )
    add_waiting_options(parser)
    parser.add_argument("-m", "--multirun", action="store_true", help="a study: values may be several, as in a=1,2")
    args = parser.parse(argv)
    if args.multirun and args.plan is not None:
        raise UsageError("a plan is a single run; -m cannot be given with --plan", hint="leave out -m")
    words = ["ai4sdk", command, *argv]
    if not args.multirun:
        from ai4sdk.cli.run_one import run_one

        return run_one(args, words)
    if args.after:
        raise UsageError("a study does not wait for runs", hint="leave out --after")
    from ai4sdk.studies.ready import ready_engine

    with ready_engine() as engine:
        from ai4sdk.cli.study import run_study

        return run_study(args.overrides, words, detach=args.detach, wait=args.wait, engine=engine)
