"""`ai4sdk oscar invoke`, `jobs`, `logs`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ai4sdk.backends.oscar.calls import call, start, upload
from ai4sdk.backends.oscar.client import has_server
from ai4sdk.cli.answers import content_of, give
from ai4sdk.cli.oscar_options import cluster_of, parser_for, read
from ai4sdk.errors import NotFound, UsageError

EPILOG = """\
examples:
  ai4sdk oscar invoke fish --input row.json                     waits for the answer, and prints it
  ai4sdk oscar invoke fish --input row.json --output answer.json
  ai4sdk oscar invoke fish --input row.json --async             starts a job
  ai4sdk oscar invoke fish --input rows.csv --upload            puts the file into the service's input
"""


def invoke(command: str, argv: Sequence[str]) -> int:
    """Call a service."""
    parser = parser_for(command, "Call a service.", EPILOG, words="NAME [KEY=VALUE]")
    parser.add_argument("--input", required=True, metavar="FILE|-", help="what to predict from")
    parser.add_argument("--output", metavar="FILE", help="where to write the answer; by default the terminal")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--async", action="store_true", dest="detached", help="start a job, and do not wait for it")
    way.add_argument("--upload", action="store_true", help="put the file where the service is started for it")
    request = read(command, parser, argv, names=["NAME"])
    (name,), args = request.names, request.args
    if args.output and (args.detached or args.upload):
        raise UsageError("there is no answer to write yet", hint="leave --output out")
    cluster = cluster_of(request)
    if args.upload:
        if args.input == "-":
            raise UsageError("a file has a name in a bucket", hint="--input FILE")
        content_of(args.input, 0)
        print(f"{upload(cluster, name, Path(args.input))} is there\n  → ai4sdk oscar jobs {name}")
    elif args.detached:
        job = start(cluster, name, content_of(args.input))
        print(f"{job or 'a job'} is started\n  → ai4sdk oscar jobs {name}")
    else:
        answer = call(cluster, name, content_of(args.input), request.options.timeout, file=args.input)
        give(answer, args.output)
    return 0


def jobs(command: str, argv: Sequence[str]) -> int:
    """List jobs."""
    parser = parser_for(command, "List the jobs of a service, the newest last.", words="NAME [KEY=VALUE]")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    request = read(command, parser, argv, names=["NAME"])
    (name,) = request.names
    cluster = cluster_of(request)
    cluster.known(name)
    found = cluster.jobs(name)
    if request.args.json:
        print(json.dumps(found, indent=2))
        return 0
    if not found:
        print(f"no jobs of {name}\n  → ai4sdk oscar invoke {name} --input FILE --async")
    for job in _in_order(found):
        print(f"{job}  {found[job]['status']:9}  {_when(found[job])}".rstrip())
    return 0


def logs(command: str, argv: Sequence[str]) -> int:
    """Show a log."""
    what = "Show what a job printed, by default the newest; or what the server of an exposed service did."
    parser = parser_for(command, what, words="NAME [JOB] [KEY=VALUE]")
    request = read(command, parser, argv, names=["NAME", "JOB"], more=1)
    name, *job = request.names
    cluster = cluster_of(request)
    service = cluster.known(name)
    if not job and has_server(service):
        print(cluster.server_log(name), end="")
        return 0
    if not job:
        job = _in_order(cluster.jobs(name))[-1:]
        if not job:
            raise NotFound(f"{name} has no jobs", hint=f"ai4sdk oscar invoke {name} --input FILE --async")
    print(cluster.log(name, job[0]), end="")
    return 0


def _in_order(jobs: dict[str, dict[str, Any]]) -> list[str]:
    """Return the names of jobs, the oldest first; those that wait for a pod have no time yet, and are last."""
    return sorted(jobs, key=lambda name: (jobs[name].get("creation_time") or "~", name))


def _when(job: dict[str, Any]) -> str:
    return str(job.get("finish_time") or job.get("start_time") or job.get("creation_time") or "")
