"""What can be written in YAML: one pydantic model a section, unknown keys refused."""

from ai4sdk.spec.backend import Backend, LocalBackend, SlurmBackend
from ai4sdk.spec.base import Section
from ai4sdk.spec.dataset import Audio, CsvOptions, Dataset, FileDataset, Images, Loader, Splits, TargetDataset
from ai4sdk.spec.evaluation import Evaluation
from ai4sdk.spec.federation import Federation
from ai4sdk.spec.hardware import Hardware
from ai4sdk.spec.job import Job
from ai4sdk.spec.kubernetes import KubernetesBackend, Toleration
from ai4sdk.spec.optimizer import Scheduler
from ai4sdk.spec.oscar import OscarBackend
from ai4sdk.spec.ray import RayBackend
from ai4sdk.spec.storage import Storage
from ai4sdk.spec.sweep import Axis, Pruner, Sweep
from ai4sdk.spec.target import Target
from ai4sdk.spec.tracking import Tracking
from ai4sdk.spec.training import Checkpoint, EarlyStopping, Training

__all__ = [
    "Audio",
    "Axis",
    "Backend",
    "Checkpoint",
    "CsvOptions",
    "Dataset",
    "EarlyStopping",
    "Evaluation",
    "Federation",
    "FileDataset",
    "Hardware",
    "Images",
    "Job",
    "KubernetesBackend",
    "Loader",
    "LocalBackend",
    "OscarBackend",
    "Pruner",
    "RayBackend",
    "Scheduler",
    "Section",
    "SlurmBackend",
    "Splits",
    "Storage",
    "Sweep",
    "Target",
    "TargetDataset",
    "Toleration",
    "Tracking",
    "Training",
]
