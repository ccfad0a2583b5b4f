"""`ai4sdk oscar cluster`: the stand-in."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from types import FrameType

from ai4sdk.backends.oscar.client import STAND_IN
from ai4sdk.backends.oscar.standin.server import serving
from ai4sdk.cli.arguments import Parser
from ai4sdk.config.project import display_path, find_project

EPILOG = f"""\
It runs until Ctrl-C, and keeps all it has in the folder {STAND_IN} of the project:
  {STAND_IN}/buckets    buckets as folders; a file that appears in a service's input starts it
  {STAND_IN}/jobs       what jobs printed
  {STAND_IN}/access.json  address, user and password, while it runs

It runs the scripts of services on this machine, as you, with no container around them.
"""


def cluster(command: str, argv: Sequence[str]) -> int:
    """Start a stand-in, and serve until told to stop."""
    parser = Parser(command, "Start a stand-in for a cluster on this machine. It is no OSCAR.", EPILOG)
    parser.add_argument("--port", type=int, default=0, metavar="PORT", help="port of 127.0.0.1 (default: any)")
    args = parser.parse(argv)
    folder = find_project().root / STAND_IN
    with serving(folder, args.port) as (access, server):

        def stop(number: int, frame: FrameType | None) -> None:
            threading.Thread(target=server.shutdown).start()  # it waits for the loop below

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        print(f"a stand-in for a cluster of OSCAR answers at {access['endpoint']}", flush=True)
        print(f"  buckets are in {display_path(folder / 'buckets')}; Ctrl-C ends it", flush=True)
        server.serve_forever(poll_interval=0.2)
    return 0
