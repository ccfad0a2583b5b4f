"""The run directory: one object owns every file name in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["README", "RunPaths"]

README = """\
A run of ai4sdk. `ai4sdk status {id}` tells how it stands.

plan.json        what runs: job, code, data fingerprints, packages, one digest over all of it
submission.json  the processes that are started
config.yaml      the job as YAML; secrets are references
state.json       queued, running, succeeded, failed, cancelled or interrupted, and why
failure.json     why a task failed, with its traceback
events.jsonl     what happened, one JSON object a line
code/            the code as it was when the plan was made
logs/            what each task printed; of several processes rank 0 in TASK.log, the others in TASK.rankN.log
metrics.jsonl    every metric logged, one JSON object a line
progress.json    where the training stands
checkpoints/     last.ckpt (to resume from) and best.ckpt
federation/      of a federation: each round's record, and the weights of the last two
evaluation/      figures and pictures on the test split
report.html      the same as one page
package/         the trained model: `ai4sdk predict {id} --input FILE`, or `mlflow models predict -m package`
tracking.json    the MLflow run, and how much was sent to it
slurm/           on a cluster: the script that was submitted, and the number of each job
kubernetes/      on Kubernetes: what was submitted, and what pods printed that write elsewhere
"""


def privacy_folder(runs: Path) -> Path:
    """Return where it is kept what runs spent of the privacy of their data, in the folder of all runs."""
    return runs / "privacy"


@dataclass(frozen=True)
class RunPaths:
    """Names of the files of one run.

    Parameters
    ----------
    root
        The run directory.
    """

    root: Path

    @property
    def id(self) -> str:
        """The run's id: the folder's name or, of a point of a study, STUDY/NUMBER."""
        folder, number = self.root.parent, self.root.name
        if folder.name == "points" and number.isdecimal():
            return f"{folder.parent.name}/{int(number)}"
        return number

    @property
    def readme(self) -> Path:
        """Text that explains the folder."""
        return self.root / "README.txt"

    @property
    def plan(self) -> Path:
        """The plan, whole."""
        return self.root / "plan.json"

    @property
    def submission(self) -> Path:
        """What the backend made of the plan."""
        return self.root / "submission.json"

    @property
    def failure(self) -> Path:
        """What a worker wrote of its failure: cause, kind and traceback."""
        return self.root / "failure.json"

    @property
    def config(self) -> Path:
        """The job as YAML."""
        return self.root / "config.yaml"

    @property
    def state(self) -> Path:
        """The state; replaced atomically."""
        return self.root / "state.json"

    @property
    def events(self) -> Path:
        """Events, appended."""
        return self.root / "events.jsonl"

    @property
    def code(self) -> Path:
        """The code snapshot, unpacked."""
        return self.root / "code"

    @property
    def logs(self) -> Path:
        """Folder of the logs."""
        return self.root / "logs"

    def log(self, task: str, rank: int = 0) -> Path:
        """Return the file with what a task, or one of its further ranks, printed, all attempts."""
        return self.logs / (f"{task}.rank{rank}.log" if rank else f"{task}.log")

    @property
    def metrics(self) -> Path:
        """Metrics, appended: ``{"time", "step", "epoch", "metrics"}`` a line."""
        return self.root / "metrics.jsonl"

    @property
    def progress(self) -> Path:
        """Where the training stands; replaced a few times a second."""
        return self.root / "progress.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.root / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """Checkpoint to resume from."""
        return self.checkpoints / "last.ckpt"

    @property
    def best_checkpoint(self) -> Path:
        """Checkpoint with the best monitored metric."""
        return self.checkpoints / "best.ckpt"

    @property
    def federation(self) -> Path:
        """Folder of the rounds of a federation; only federations have it."""
        return self.root / "federation"

    @property
    def evaluation(self) -> Path:
        """Folder of the evaluation."""
        return self.root / "evaluation"

    @property
    def scores(self) -> Path:
        """Figures of the evaluation, as JSON."""
        return self.evaluation / "metrics.json"

    @property
    def predictions(self) -> Path:
        """What the module answered in the evaluation, and what it should have: ``outputs`` and ``targets``."""
        return self.evaluation / "predictions.npz"

    @property
    def report(self) -> Path:
        """The evaluation as one self-contained page."""
        return self.root / "report.html"

    @property
    def package(self) -> Path:
        """The model package."""
        return self.root / "package"

    @property
    def tracking(self) -> Path:
        """The MLflow run and how far metrics were sent."""
        return self.root / "tracking.json"

    @property
    def membership(self) -> Path:
        """Of which study this is a point, and what to report to it; only points have it."""
        return self.root / "point.json"

    @property
    def reports(self) -> Path:
        """What a point reported while training, appended: ``{"step", "value"}`` a line."""
        return self.root / "reports.jsonl"

    @property
    def verdicts(self) -> Path:
        """Whether to go on after a report, appended: ``{"step", "go_on"}`` a line."""
        return self.root / "verdicts.jsonl"

    @property
    def slurm(self) -> Path:
        """Folder of what was handed to Slurm; only runs on a cluster have it."""
        return self.root / "slurm"

    @property
    def kubernetes(self) -> Path:
        """Folder of what was handed to Kubernetes; only runs there have it."""
        return self.root / "kubernetes"

    @property
    def lock(self) -> Path:
        """Held by whoever executes the run."""
        return self.root / "lock"

    @property
    def cancel_request(self) -> Path:
        """Present once somebody asked the run to stop."""
        return self.root / "cancel"
