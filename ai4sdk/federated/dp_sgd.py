"""DP-SGD at a site: each record's gradient is clipped and noise is added to their sum, before an optimizer sees it.

M. Abadi and others: Deep Learning with Differential Privacy, 2016, https://arxiv.org/abs/1607.00133. Opacus tells the
gradient of each record, by hooks on the module as it is; batches, clipping and noise are ours, as they have to follow
from the site's secret: a round that is done again after a kill then gives away nothing new.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, default_collate

from ai4sdk.data.loaders import SplitData
from ai4sdk.errors import EnvironmentFault, RunFailed
from ai4sdk.privacy.noise import gaussian
from ai4sdk.spec.privacy import Privacy

__all__ = ["PoissonBatches", "PrivateGradients", "PrivateRecords", "private_loader", "require_mean_loss"]

_ONE_OPTIMIZER = "federation.privacy.mode=record needs one optimizer, which Lightning steps"
_WHOLE_SITES = "protect whole sites: federation.privacy.mode=local"
_TRIED = 8
"""Records that the loss is tried with."""

_AGREE = 1e-3
"""How far the mean of the records' gradients may be from the gradient, relative to its size: as far as floats round."""


@dataclass(frozen=True)
class PrivateRecords:
    """What sites protect their records with.

    Parameters
    ----------
    privacy
        The section.
    noise
        Site → noise multiplier.
    secret
        What noise and batches are drawn with.
    """

    privacy: Privacy
    noise: Mapping[str, float]
    secret: bytes

    def of_training(self, site: str, label: str, samples: int, batch_size: int) -> PrivateGradients:
        """Return what protects one training of a site.

        Parameters
        ----------
        site
            Which.
        label
            All that the training depends on: another one draws other batches and other noise.
        samples, batch_size
            Of the site; of a batch on average.
        """
        batches = PoissonBatches(samples, batch_size, self.secret, f"batches\0{site}\0{label}")
        deviation = self.noise[site] * self.privacy.clipping_norm
        return PrivateGradients(batches, self.privacy.clipping_norm, deviation, self.secret, f"{site}\0{label}")


class PoissonBatches(Sampler[list[int]]):
    """Batches in which each record is by itself, with the same chance, as the accountant assumes.

    Parameters
    ----------
    samples
        Records that there are.
    batch_size
        Records of a batch on average, which the sum of gradients is divided by.
    secret, label
        What they are drawn with; each pass draws anew.
    """

    def __init__(self, samples: int, batch_size: int, secret: bytes, label: str) -> None:
        self.samples, self.expected = samples, min(batch_size, samples)
        seed = hashlib.sha256(secret + label.encode()).digest()
        self._draw = np.random.Generator(np.random.PCG64(int.from_bytes(seed, "big")))
        self.sizes: list[int] = []
        """Records of each batch of this pass; one without any is given a record that counts as none."""

    def __len__(self) -> int:
        return math.ceil(self.samples / self.expected)

    def __iter__(self) -> Iterator[list[int]]:
        chance = self.expected / self.samples
        drawn = [np.flatnonzero(self._draw.random(self.samples) < chance) for _ in range(len(self))]
        self.sizes = [len(batch) for batch in drawn]
        for batch in drawn:
            yield batch.tolist() or [0]


def private_loader(data: SplitData, batches: PoissonBatches) -> DataLoader[Any]:
    """Return a loader of the training split with such batches."""
    part: Any = data.parts["train"]
    return DataLoader(
        part, batch_sampler=batches, num_workers=data.loader.num_workers, collate_fn=data.collate, pin_memory=False
    )


def require_mean_loss(module: pl.LightningModule, data: SplitData) -> None:
    """Refuse a loss that is another one where there are more records of the same kind.

    A record's gradient must not depend on how many others are in its batch: with a sum it would, and whoever leaves
    would change what all others give.

    Parameters
    ----------
    module
        A copy that no trainer has, which is spent by this.
    data
        The site's.

    Raises
    ------
    RunFailed
        If it is no mean, or cannot be tried.
    """
    if not module.automatic_optimization:
        raise RunFailed(_ONE_OPTIMIZER, hint=_WHOLE_SITES)
    part: Any = data.parts["train"]
    records = [part[number] for number in range(min(_TRIED, len(part)))]
    collate = data.collate or default_collate
    module.eval()  # no dropout, which would make them differ
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", message=".*`self.log\\(")
        try:
            once, thrice = (_loss_of(module, collate(records * times)) for times in (1, 3))
        except Exception as error:
            raise RunFailed(
                f"federation.privacy.mode=record: training_step cannot be tried without a trainer: {error}",
                hint=f"let training_step depend on the batch alone; or {_WHOLE_SITES}",
            ) from error
    if not abs(once - thrice) <= _AGREE * abs(once) + 1e-7:
        raise RunFailed(
            f"the loss of {len(records)} records is {once:.6g}, of each three times {thrice:.6g}: it is no mean",
            hint="let the loss be the mean over the batch, of terms that depend on one record each",
        )


def _loss_of(module: pl.LightningModule, batch: Any) -> float:
    found: Any = module.training_step(batch, 0)
    return float(found["loss"] if isinstance(found, Mapping) else found)


class PrivateGradients(Callback):
    """Puts the clipped and noised mean of the records' gradients in place of the gradient.

    Parameters
    ----------
    batches
        What the records are drawn by.
    clipping_norm
        Largest L2 norm of a record's gradient, over all parameters together.
    deviation
        Standard deviation of the noise on the sum.
    secret, label
        What noise is drawn with.
    """

    def __init__(
        self, batches: PoissonBatches, clipping_norm: float, deviation: float, secret: bytes, label: str
    ) -> None:
        self.batches = batches
        self._norm, self._deviation, self._secret, self._label = clipping_norm, deviation, secret, label
        self._hooks: Any = None
        self._step = 0
        self._records = 0
        self.clipped = self.records = 0
        """Records whose gradient was clipped, and all of them."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Have the module tell the gradient of each record."""
        if len(trainer.optimizers) != 1:
            raise RunFailed(_ONE_OPTIMIZER, hint=_WHOLE_SITES)
        try:
            from opacus.grad_sample import GradSampleHooks
        except ImportError as error:
            raise EnvironmentFault(
                f"gradients of single records need the package {error.name}", hint="pip install 'ai4sdk[privacy]'"
            ) from error
        try:
            self._hooks = GradSampleHooks(pl_module, loss_reduction="mean", strict=True)
        except NotImplementedError as error:
            raise RunFailed(
                f"a record's gradient cannot be told apart from others' in this module: {str(error)[:300]}",
                hint="use GroupNorm or LayerNorm in place of BatchNorm",
            ) from error

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note how many records there are."""
        self._records = self.batches.sizes[batch_idx]

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Clip, add up, add noise, divide by the size that batches have on average."""
        trained = {name: one for name, one in pl_module.named_parameters() if one.requires_grad}
        of_records = {name: self._of_records(name, parameter) for name, parameter in trained.items()}
        if self._step == 0 and self._records:
            self._require_mean(trained, of_records)
        squares = [each.flatten(1).square().sum(1) for each in of_records.values()]
        norms = torch.stack(squares).sum(0).sqrt()
        factors = (self._norm / norms.clamp(min=torch.finfo(norms.dtype).tiny)).clamp(max=1.0)
        if not self._records:
            factors = torch.zeros_like(factors)
        if not torch.isfinite(norms).all():
            raise RunFailed(
                "a record's gradient is no finite number, so that it cannot be clipped",
                hint="a smaller optimizer.lr, or look for broken values in the data",
            )
        self.clipped += int((factors < 1).sum()) if self._records else 0
        self.records += self._records
        for name, parameter in trained.items():
            total = torch.einsum("i,i...->...", factors, of_records[name])
            noise = self._deviation * gaussian(self._secret, f"{self._label}\0{self._step}\0{name}", total.numel())
            noised = total + torch.from_numpy(noise).to(total).reshape(total.shape)
            parameter.grad = (noised / self.batches.expected).to(parameter.dtype)
            parameter.grad_sample = None  # type: ignore[attr-defined] # where Opacus keeps it
        self._step += 1

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the hooks away."""
        self._hooks.remove_hooks()

    @staticmethod
    def _of_records(name: str, parameter: Tensor) -> Tensor:
        found = getattr(parameter, "grad_sample", None)
        if not isinstance(found, Tensor):
            why = "is not used" if parameter.grad is None else "is used in a way that hooks on layers do not see"
            raise RunFailed(
                f"{name} {why}, so that the gradient of single records is not known",
                hint=f"freeze it (training.freeze), or {_WHOLE_SITES}",
            )
        return found.detach()

    @staticmethod
    def _require_mean(trained: Mapping[str, Tensor], of_records: Mapping[str, Tensor]) -> None:
        """Refuse a loss whose gradient is not the mean of the records': clipping these would protect nobody."""
        for name, parameter in trained.items():
            mean = of_records[name].mean(0)
            gradient = mean.new_tensor(float("inf")) if parameter.grad is None else parameter.grad
            if not float((gradient - mean).norm()) <= _AGREE * float(mean.norm()) + 1e-7:
                raise RunFailed(
                    f"the gradient of {name} is not the mean of the gradients of single records",
                    hint="let the loss be the mean over the batch, of terms that depend on one record each, without "
                    "16-bit scaling; weight decay belongs to the optimizer",
                )
