"""A task from its plan to its end: fit, evaluate, package. A resumed task skips what is finished."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from ai4sdk.data.fingerprint import require_paths
from ai4sdk.data.module import Data, SplitData, load_data
from ai4sdk.data.preprocessing import Preprocessing
from ai4sdk.drift.measure import Measured, measure
from ai4sdk.errors import DataError
from ai4sdk.planning.plan import Plan
from ai4sdk.runs.files import read_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.spec import FileDataset, Job, TargetDataset
from ai4sdk.spec.scale import scale_of
from ai4sdk.worker.calling import moved, split_batch
from ai4sdk.worker.evaluate import evaluate
from ai4sdk.worker.finetune import freeze, load_weights, read_weights
from ai4sdk.worker.group import Group, join
from ai4sdk.worker.instantiate import instantiate
from ai4sdk.worker.package import write_package
from ai4sdk.worker.randomness import find_generators, generator_states, seed_of_rank, set_generator_states
from ai4sdk.worker.records import Records
from ai4sdk.worker.report import write_report
from ai4sdk.worker.signals import StopRequest
from ai4sdk.worker.task import Task, open_task
from ai4sdk.worker.train import fit, make_module, quiet_lightning, trained_weights

__all__ = ["PHASES", "Work", "divide_batch_size", "execute"]

log = logging.getLogger(__name__)

PHASES = ("fit", "evaluate", "package")
_EXAMPLES = 8


def execute(plan: Plan, paths: RunPaths, task: str, stop: StopRequest) -> None:
    """Execute a task of a run's plan to its end.

    Parameters
    ----------
    plan
        What runs.
    paths
        Files of the run; its code is unpacked.
    task
        Name of the task in the plan.
    stop
        Asked between batches and phases.

    Raises
    ------
    StopTraining
        If it was asked to stop.
    Ai4Error
        For everything that is known to go wrong; the user's code may raise anything.
    """
    quiet_lightning()
    with open_task(plan, paths, task, stop) as opened:
        Work(opened).do()


def divide_batch_size(data: Data, job: Job) -> None:
    """Let loaders give the batches of one process, where the job says how many samples all take together."""
    if job.training.global_batch_size is not None and isinstance(data.datamodule, SplitData):
        loader = data.datamodule.loader
        data.datamodule.loader = loader.model_copy(update={"batch_size": scale_of(job).batch_size})


class Work:
    """The phases of a task, and what they share."""

    def __init__(self, task: Task) -> None:
        self.plan, self.job, self.paths, self.records = task.plan, task.job, task.paths, task.records
        self.stop, self.rank, self.threads = task.stop, task.rank, task.threads
        self.group = Group()

    def do(self) -> None:
        """Do what is left to do. Of several processes all train; what follows is done by rank 0, on every sample."""
        progress = self.records.progress
        todo = [phase for phase in PHASES if phase not in progress.finished]
        if not self.rank.is_first:
            todo = [phase for phase in todo if phase == "fit"]
        if not todo:
            progress.enter("done")
            return
        progress.enter("start")
        if "fit" in todo:
            self.group = join(self.rank)
        self.prepare()
        self.stop.orderly()
        for phase in todo:
            if self.group.size == 1:  # several stop together, before their first batch
                self.stop.check()
            progress.enter(phase)
            self.records.event("phase", phase=phase)
            if phase != "fit":
                self.draw_alike()
            getattr(self, phase)()
            progress.finish(phase)
        progress.enter("done")

    def prepare(self) -> None:
        """Make data and module. Everything random in it is seeded alike in a fresh and in a resumed task."""
        job = self.job
        torch.set_num_threads(self.threads)
        pl.seed_everything(job.seed, workers=True, verbose=False)
        self.data = self._data()
        pl.seed_everything(job.seed, workers=True, verbose=False)
        self.module = make_module(job)
        if origin := self.plan.inputs.get("init_from"):
            report = load_weights(self.module, read_weights(Path(origin["path"])), origin["source"])
            self.records.event("weights loaded", source=origin["source"], **report.to_json())
        freeze(self.module, job.training.freeze)
        self.generators = find_generators({"data": self.data, "module": self.module})
        self.prepared = generator_states(self.generators)
        if not self.rank.is_first:  # what follows, such as dropout, must not be the same on all; rank 0 is as if alone
            pl.seed_everything(seed_of_rank(job.seed, self.rank.rank), workers=True, verbose=False)

    def draw_alike(self) -> None:
        """Have a phase after the training draw the same random numbers as it would in a resumed task.

        Making the data anew would do that, too, but reads it twice.
        """
        pl.seed_everything(self.job.seed, workers=True, verbose=False)
        set_generator_states(self.generators, self.prepared)

    def _data(self) -> Data:
        return self.read("dataset", self.job.learner.dataset)

    def read(self, key: str, dataset: FileDataset | TargetDataset, preprocessing: Preprocessing | None = None) -> Data:
        """Read a dataset, which must be what it was when the plan was made.

        Parameters
        ----------
        key
            What the plan calls it; see `ai4sdk.spec.Job.datasets`.
        dataset
            The section.
        preprocessing
            What prepares its samples; by default it is measured.
        """
        job, recorded, project = self.job, self.plan.data.get(key, {}), Path.cwd()
        if isinstance(dataset, FileDataset):
            dataset = dataset.model_copy(update={"fingerprint": recorded.get("fingerprint", dataset.fingerprint)})
        else:
            require_paths(recorded.get("paths", {}), dataset.arguments, project, key)
        # Code of the user's may fetch files, which only one process of a node can do at once; ours waits by itself.
        in_turn = not isinstance(dataset, FileDataset)
        if in_turn and self.rank.local_rank > 0:
            self.group.wait()
        data = load_data(
            dataset,
            storage=job.storage,
            project=project,
            task=job.task,
            seed=job.seed,
            instantiate=functools.partial(instantiate, key=key),
            site=job.site_column,
            preprocessing=preprocessing,
        )
        if in_turn and self.rank.local_rank == 0:
            self.group.wait()
        divide_batch_size(data, job)
        return data

    def fit(self) -> None:
        """Train."""
        fit(
            self.job,
            self.module,
            self.data.datamodule,
            paths=self.paths,
            records=self.records,
            stop=self.stop,
            group=self.group,
        )
        self.group.leave()
        if self.job.training.mode == "fsdp" and self.rank.is_first:  # of that module there is only a slice here
            pl.seed_everything(self.job.seed, workers=True, verbose=False)
            self.module = make_module(self.job)
            self.generators = find_generators({"data": self.data, "module": self.module})

    def evaluate(self) -> None:
        """Judge the trained module by a split."""
        self._load_trained()
        loader = _Watched(self._loader(self.job.evaluation.split), self.records, self.stop)
        evaluation = evaluate(
            self.module,
            loader,
            task=self.data.task,  # type: ignore[arg-type] # a name of spec.Task
            class_names=self._class_names,
            device=self._device,
        )
        evaluation.save(self.paths.evaluation)
        write_report(self.paths, pictures=not self.paths.membership.exists())
        self.records.event("evaluated", split=self.job.evaluation.split, samples=evaluation.samples)

    def package(self) -> None:
        """Write the model package."""
        self._load_trained()
        scores = read_json(self.paths.scores)
        self.package_with(task=scores["task"], scores=scores)

    def package_with(self, **judged: Any) -> None:
        """Write the package with what is known of the data, and what it was judged to be."""
        self.write_package(
            preprocessing=self.data.preprocessing,
            column_names=self.data.column_names,
            example_input=self._example(),
            drift=self.measured(),
            **judged,
        )

    @property
    def drift_scope(self) -> str:
        """What the package may tell of the data: ``all``, ``outputs`` or ``none``.

        Of what sites of a federation have a package tells nothing, be it that of a site; answers are summarised, except
        with privacy, as nobody accounts for that.
        """
        wanted, job = self.job.evaluation.drift, self.job
        if job.training.mode != "federated" or wanted == "none":
            return wanted
        return "outputs" if job.federation.privacy is None else "none"

    def measured(self) -> Measured | None:
        """Return what later data will be held against, if there is anything."""
        if self.drift_scope == "none":
            return None
        outputs = None
        if self.paths.predictions.is_file():
            with np.load(self.paths.predictions, allow_pickle=False) as kept:
                outputs = kept.get("outputs")
        split = self.job.evaluation.split
        with_inputs = self.drift_scope == "all"
        found = measure(self.data, split=split, batches=self._loader, outputs=outputs, with_inputs=with_inputs)
        return None if found.is_empty else found

    def write_package(self, **known: Any) -> None:
        """Write the package with what is known of the data, and what follows from the plan."""
        write_package(
            self.paths.package,
            module=self.module,
            module_target=self.job.learner.module.as_config(),
            class_names=self._class_names,
            code=self.paths.code,
            code_paths=self.plan.code["paths"],
            plan_digest=self.plan.digest,
            run_id=self.paths.id,
            packages=self.plan.packages,
            name=self.job.name,
            description=self.job.description,
            **known,
        )
        self.records.event("packaged")

    @property
    def _class_names(self) -> list[str] | None:
        return self.job.evaluation.class_names or self.data.class_names

    @property
    def _device(self) -> str:
        return "cuda" if self.job.hardware.gpus else "cpu"

    def _load_trained(self) -> None:
        weights = trained_weights(self.paths, self.job.evaluation.weights)
        self.module.load_state_dict(weights, strict=self.module.strict_loading)

    def _loader(self, split: str) -> Any:
        """Return the batches of a split, from a datamodule that may not have been set up in this process."""
        datamodule = self.data.datamodule
        datamodule.prepare_data()
        datamodule.setup({"train": "fit", "val": "validate", "test": "test"}[split])
        made = getattr(datamodule, f"{split}_dataloader")()
        return made[0] if isinstance(made, list | tuple) and len(made) == 1 else made

    def _example(self) -> Any:
        for split in (self.job.evaluation.split, "train"):
            for batch in self._loader(split):
                inputs, _ = split_batch(batch)
                return moved(inputs, torch.device("cpu"))[:_EXAMPLES]
        raise DataError("the data gives no batch that could serve as an example for the package")


class _Watched:
    """A loader that tells the progress and can be stopped; everything else is the loader's own."""

    def __init__(self, loader: Any, records: Records, stop: StopRequest) -> None:
        self._loader, self._records, self._stop = loader, records, stop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __iter__(self) -> Iterator[Any]:
        total = len(self._loader) if hasattr(self._loader, "__len__") else None
        for index, batch in enumerate(self._loader):
            self._stop.check()
            if self._records.progress.due:
                self._records.progress.update(batch=index, batches=total)
            yield batch
