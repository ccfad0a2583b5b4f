"""How long planning a study takes, and how much memory: every point composed, validated, frozen, and given its digest.

    python benchmarks/study_planning.py [--rounds 5] [--points 100 10000]

`ai4sdk plan -m config=quickstart 'seed=range(N)'` is started as its own process, as a person would start it, in an
empty folder. Memory is the largest resident set that any of them had.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile

from side_by_side import measure, run_process


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--points", type=int, nargs="+", default=[100, 10_000])
    options = parser.parse_args()
    ours = [sys.executable, "-m", "ai4sdk", "plan", "-m", "config=quickstart"]
    for points in sorted(options.points):  # as the peak of all children so far is told, the largest comes last
        with tempfile.TemporaryDirectory() as folder:

            def plan(points: int = points, folder: str = folder) -> None:
                run_process(*ours, f"seed=range({points})", folder=folder)

            seconds = measure({"plan": plan}, options.rounds)["plan"]
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # of kilobytes
        each = seconds / points * 1000
        print(f"{points:7,} points  {seconds:7.2f} s  {each:6.2f} ms each  {peak:6.0f} MB at most")
        print(json.dumps({"points": points, "seconds": round(seconds, 3), "peak_megabytes": round(peak)}))


if __name__ == "__main__":
    main()
