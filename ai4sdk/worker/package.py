"""Write a model package: a folder that `load_model` and MLflow load, with weights, schema and golden requests."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn

from ai4sdk._version import __version__
from ai4sdk.drift.reference import REFERENCE
from ai4sdk.errors import RunFailed
from ai4sdk.runs.files import sync, write_json, write_text
from ai4sdk.worker.calling import Undecided, as_array, choose_call, float_type, main_tensor, moved, still
from ai4sdk.worker.description import CODE, MODEL_FILE, WEIGHTS, Description, PackageTask
from ai4sdk.worker.examples import Samples, raw_samples
from ai4sdk.worker.imports import code_digest
from ai4sdk.worker.model import Model
from ai4sdk.worker.scores import class_names_for, kind_of_outputs
from ai4sdk.worker.signature import (
    column_schema,
    conda_environment,
    input_example,
    mlmodel,
    output_schema,
    python_environment,
    request_body,
    requirements,
    tensor_schema,
)

if TYPE_CHECKING:
    from ai4sdk.data.preprocessing import Preprocessing
    from ai4sdk.drift.measure import Measured

__all__ = ["GOLDEN_REQUESTS", "GOLDEN_RESPONSES", "write_package"]

GOLDEN_REQUESTS = "golden/requests.json"
GOLDEN_RESPONSES = "golden/responses.json"
GOLDEN_SAMPLES = 3
MAX_NUMBERS = 300_000
"""Golden requests hold fewer samples, one at least, where three would be more numbers than this."""

HEADLINES = ("accuracy", "balanced_accuracy", "roc_auc", "log_loss", "r2", "mae", "rmse", "samples")
"""Figures that go into the description and the README."""


def write_package(
    folder: Path,
    *,
    module: nn.Module,
    module_target: Mapping[str, Any],
    preprocessing: Preprocessing | None = None,
    task: str,
    class_names: Sequence[str] | None = None,
    column_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    example_input: Any,
    scores: Mapping[str, Any] | None = None,
    code: Path | None = None,
    code_paths: Sequence[str] = ("",),
    plan_digest: str,
    run_id: str,
    packages: Mapping[str, str],
    name: str,
    description: str = "",
    metadata: Mapping[str, Any] | None = None,
    drift: Measured | None = None,
) -> Path:
    """Write a package; the same run gives the same bytes, but for the time of creation in ``MLmodel``.

    Parameters
    ----------
    folder
        The package. It appears at once; one that is there is replaced as a whole.
    module
        The trained module; left as found.
    module_target
        ``_target_`` and arguments that make the module again.
    preprocessing
        What is done to samples first; nothing where the module takes them as they are.
    task
        ``classification``, ``regression`` or ``other``; anything else is told from what the module answers.
    class_names, column_names, output_names
        Names of classes by number, of a sample's columns, of a regressor's outputs.
    example_input
        One sample or more: records as a user would send them, or an array as the module takes it (a batch of its
        loader), which is turned back into what a user would send.
    scores
        Figures of the evaluation.
    code, code_paths
        Folder of the code snapshot, which is copied, and the folders in it that modules are imported from.
    plan_digest, run_id, packages, name, description
        Where the model comes from.
    metadata
        Content of ``ai4-metadata.yml``.
    drift
        What later data are held against; see `ai4sdk.drift`.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    RunFailed
        If the module cannot be packaged: state that is no plain data, or no answer to the example.
    """
    figures = dict(scores or {})
    samples = _as_samples(example_input, column_names, preprocessing)
    with still(module):
        known, weights = _describe(
            module,
            samples,
            preprocessing,
            figures,
            name=name,
            task=task,
            target=_plain(module_target, "the module's arguments"),
            class_names=list(class_names) if class_names is not None else None,
            column_names=list(column_names) if column_names is not None else _columns_of(samples),
            output_names=list(output_names) if output_names is not None else None,
            plan=plan_digest,
            run=run_id,
            packages={**packages, **_decoders(preprocessing)},
            scores={key: figures[key] for key in HEADLINES if figures.get(key) is not None},
            code_paths=list(code_paths) if code is not None else [],
            code_sha256=code_digest(code) if code is not None else None,
        )
        golden = [samples[index : index + 1] for index in range(_golden_count(samples))]
        model = Model(module, known, preprocessing)
        answers = [model(sample).to_records() for sample in golden]
        reference = None if drift is None else drift.reference(model.read)

    scratch = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        (scratch / WEIGHTS).write_bytes(weights)
        write_json(scratch / MODEL_FILE, known.model_dump(mode="json"))
        if code is not None:
            shutil.copytree(code, scratch / CODE, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        _write_for_mlflow(scratch, known, samples[: len(golden)], has_code=code is not None)
        (scratch / "golden").mkdir()
        write_text(scratch / GOLDEN_REQUESTS, json.dumps([request_body(sample) for sample in golden]))
        write_json(scratch / GOLDEN_RESPONSES, [{"predictions": answer} for answer in answers])
        write_text(
            scratch / "README.md", _readme(known, description, figures, () if reference is None else reference.notes)
        )
        if reference is not None:
            (scratch / REFERENCE).parent.mkdir()
            write_text(scratch / REFERENCE, reference.to_text())
        if metadata is not None:
            text = yaml.safe_dump(_plain(metadata, "the metadata"), sort_keys=False, allow_unicode=True)
            write_text(scratch / "ai4-metadata.yml", text)
        _flush(scratch)
        _replace(folder, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _describe(
    module: nn.Module,
    samples: Samples,
    preprocessing: Preprocessing | None,
    figures: Mapping[str, Any],
    *,
    task: str,
    **facts: Any,
) -> tuple[Description, bytes]:
    """Ask the module about the example, and describe it with its weights."""
    raw = samples[: _golden_count(samples)]
    array = np.asarray(preprocessing.transform(raw) if preprocessing is not None else _module_input(raw, facts))
    device = next((weight.device for weight in module.parameters()), torch.device("cpu"))
    # A copy, as the module may write into it.
    inputs = moved(torch.from_numpy(np.array(array, order="C")), device, float_type(module))
    try:
        call, answer = choose_call(module, inputs)
    except Undecided as error:
        raise RunFailed(
            f"no package can be made: {error}",
            hint="give the module a forward(x) or predict_step(batch) that answers with a tensor",
        ) from error
    outputs = as_array(main_tensor(answer))
    outputs = outputs[None] if outputs.ndim == 0 else outputs
    decided, kind = _form_of(outputs, task, figures)
    if decided == "classification":
        width = 0 if kind == "labels" else 2 if outputs.ndim == 1 else max(outputs.shape[1], 2)
        facts["class_names"] = class_names_for(width, facts["class_names"]) if width else facts["class_names"]
    tensors, shared, extra = _state_of(module)
    weights = _serialized(tensors)
    dtype = float_type(module)
    known = Description(
        **facts,
        task=decided,
        call=call,
        preprocessing=None if preprocessing is None else _plain(preprocessing.to_json(), "the preprocessing"),
        input_shape=list(array.shape[1:]),
        input_dtype=str(array.dtype),
        weights_dtype=str(dtype).removeprefix("torch.") if dtype not in (None, torch.float32) else None,
        output_shape=list(outputs.shape[1:]),
        output_kind=kind,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        shared_weights=shared,
        extra_state=extra,
    )
    return known, weights


def _form_of(outputs: NDArray[Any], task: str, scores: Mapping[str, Any]) -> tuple[PackageTask, Any]:
    """Decide what the answers are; the evaluation, which saw all of them, is believed first."""
    if task == "classification" and outputs.ndim <= 2:
        whole = outputs.dtype.kind in "iub"
        if whole:
            return "classification", "labels"
        seen = scores.get("outputs")
        return "classification", seen if seen in ("logits", "probabilities") else kind_of_outputs(outputs)
    return ("regression" if task == "regression" else "other"), "values"


def _as_samples(example: Any, column_names: Sequence[str] | None, preprocessing: Preprocessing | None) -> Samples:
    """Bring the example into records or an array, with a first axis of samples."""
    if isinstance(example, Tensor):
        example = as_array(example)
    if not isinstance(example, np.ndarray) and len(example) and isinstance(example[0], Mapping):
        return [{str(key): _scalar(value) for key, value in record.items()} for record in example]
    example = np.asarray(example)[:GOLDEN_SAMPLES]
    if preprocessing is not None:
        return raw_samples(example, preprocessing)
    if column_names is not None and len(column_names) == len(example[0]):
        return [{str(name): _scalar(value) for name, value in zip(column_names, row, strict=True)} for row in example]
    return np.asarray(example)


def _scalar(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and value != value else value


def _columns_of(samples: Samples) -> list[str] | None:
    return None if isinstance(samples, np.ndarray) else [str(name) for name in samples[0]]


def _module_input(samples: Samples, facts: Mapping[str, Any]) -> NDArray[Any]:
    if isinstance(samples, np.ndarray):
        return samples
    return np.asarray([[record[name] for name in facts["column_names"]] for record in samples], dtype=np.float32)


def _golden_count(samples: Samples) -> int:
    size = samples[0].size if isinstance(samples, np.ndarray) else len(samples[0])
    return max(1, min(len(samples), GOLDEN_SAMPLES, MAX_NUMBERS // max(size, 1)))


def _state_of(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, str], dict[str, Any]]:
    """Return the weights, which of them are one tensor under several names, and the state that is no tensor."""
    tensors: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    extra: dict[str, Any] = {}
    stored: dict[tuple[Any, ...], str] = {}
    for name, value in module.state_dict().items():
        if not isinstance(value, Tensor):
            extra[name] = _plain(value, f"the state {name} of the module")
            continue
        key = (value.data_ptr(), value.dtype, tuple(value.shape), tuple(value.stride()), value.device)
        if value.numel() and key in stored:
            shared[name] = stored[key]
            continue
        stored[key] = name
        tensors[name] = value.detach().cpu().contiguous().clone()
    return tensors, shared, extra


def _serialized(tensors: dict[str, Tensor]) -> bytes:
    from safetensors.torch import save

    try:
        return bytes(save(tensors))
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise RunFailed(f"the weights cannot be stored: {error}", hint="keep such tensors out of the state") from error


def _plain(value: Any, what: str) -> Any:
    """Return the value as JSON gives it back; what would come back changed is refused."""
    try:
        text = json.dumps(value, allow_nan=False)
        read = json.loads(text)
    except (TypeError, ValueError) as error:
        raise RunFailed(
            f"{what} cannot be packaged: {error}",
            hint="keep to numbers, texts, lists and mappings, or register it as a buffer",
        ) from error
    if not _equal(value, read):
        raise RunFailed(
            f"{what} cannot be packaged: JSON would change it",
            hint="use lists instead of tuples and texts as keys, or register it as a buffer",
        )
    return read


def _equal(value: Any, read: Any) -> bool:
    if isinstance(value, Mapping):
        return isinstance(read, dict) and value.keys() == read.keys() and all(_equal(value[k], read[k]) for k in read)
    if isinstance(value, list):
        return isinstance(read, list) and len(value) == len(read) and all(map(_equal, value, read))
    return type(value) is type(read) and bool(value == read)


def _write_for_mlflow(folder: Path, known: Description, samples: Samples, *, has_code: bool) -> None:
    is_array = isinstance(samples, np.ndarray)
    if isinstance(samples, np.ndarray):
        # pictures and recordings are brought to size by the preprocessing, so any height, width and length goes
        free = {"images": 2, "audio": 1}.get((known.preprocessing or {}).get("kind", ""), 0)
        shape = [*[-1] * free, *samples.shape[1 + free :]]
        schema = tensor_schema(shape, str(samples.dtype))
    else:
        rules = (known.preprocessing or {}).get("columns", ())
        schema = column_schema(samples, {rule["name"] for rule in rules if rule["kind"] == "text"})
    packages = {"ai4sdk": __version__, "mlflow": _mlflow_version(), **known.packages}
    pinned = requirements(packages)
    content = mlmodel(
        inputs=schema,
        outputs=output_schema(known),
        example="ndarray" if is_array else "dataframe",
        identity=uuid.uuid5(uuid.NAMESPACE_URL, f"{known.run}:{known.plan}:{known.weights_sha256}").hex,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
        version=packages["mlflow"],
        has_code=has_code,
    )
    write_text(folder / "MLmodel", yaml.safe_dump(content))
    write_text(folder / "requirements.txt", "\n".join(pinned) + "\n")
    write_text(folder / "python_env.yaml", yaml.safe_dump(python_environment(), sort_keys=False))
    write_text(folder / "conda.yaml", yaml.safe_dump(conda_environment(pinned), sort_keys=False))
    write_text(folder / "input_example.json", json.dumps(input_example(samples)))
    write_text(folder / "serving_input_example.json", json.dumps(request_body(samples)))


def _decoders(preprocessing: Preprocessing | None) -> dict[str, str]:
    """Return what whoever loads the package needs for its samples, and ai4sdk does not bring by itself."""
    if preprocessing is None or preprocessing.kind != "audio":
        return {}
    try:
        return {"soundfile": version_of("soundfile")}
    except PackageNotFoundError:  # installed by other means than pip's
        return {}


def _mlflow_version() -> str:
    try:
        return version_of("mlflow")
    except PackageNotFoundError:
        return "3.17.0"


def _readme(known: Description, description: str, scores: Mapping[str, Any], drift: Sequence[str]) -> str:
    """Return a model card."""
    gives = {"classification": "Tells classes apart", "regression": "Predicts numbers", "other": "Gives arrays"}
    lines = [f"# {known.name}", "", description.strip() or f"{gives[known.task]}.", ""]
    lines += ["## What goes in and what comes out", ""]
    if known.column_names:
        lines.append(f"- In: records with the columns {', '.join(f'`{name}`' for name in known.column_names)}.")
    else:
        what = {"images": "pictures", "audio": "recordings"}.get((known.preprocessing or {}).get("kind", ""), "arrays")
        lines.append(
            f"- In: {what}; the module takes {known.input_dtype} of shape {tuple(known.input_shape)} a sample."
        )
    if known.class_names:
        lines.append(f"- Out: one of {len(known.class_names)} classes: {', '.join(map(str, known.class_names))}.")
    else:
        lines.append(f"- Out: shape {tuple(known.output_shape)} a sample.")
    lines += ["", "## How good it is", ""]
    if known.scores:
        lines += ["| figure | value |", "| --- | --- |"]
        lines += [f"| {key.replace('_', ' ')} | {_short(value)} |" for key, value in known.scores.items()]
    else:
        lines.append("It was not evaluated.")
    lines += [f"\n{note}" for note in scores.get("notes", ())]
    lines += [
        "",
        "## How to use it",
        "",
        "```bash",
        "ai4sdk predict . --input serving_input_example.json",
        "mlflow models predict -m . -i serving_input_example.json --env-manager local",
        "```",
        "",
        "```python",
        "from ai4sdk import load_model",
        "",
        'model = load_model(".")  # trust_code=True if its code is not installed and you trust who made it',
        "```",
        "",
        "`golden/` holds requests and the answers this model gave to them when it was made.",
        "",
        *_of_drift(drift),
        "## Where it comes from",
        "",
        f"- Run `{known.run}`, plan `{known.plan}`",
        f"- Module `{known.target['_target_']}`",
        f"- Packages: {', '.join(f'{name} {version}' for name, version in sorted(known.packages.items()))}",
        "",
    ]
    return "\n".join(lines)


def _of_drift(notes: Sequence[str]) -> list[str]:
    if not notes:
        return []
    told = "`ai4sdk drift check . --data FILE` holds new data against the summaries in `drift/reference.json`."
    return ["## Whether new data are like the old", "", told, *notes, ""]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _flush(folder: Path) -> None:
    """Wait until every file of a folder is on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            sync(path)


def _replace(folder: Path, scratch: Path) -> None:
    """Put the new folder in the place of the old one; a kill in between leaves the old one beside it, and no half."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    scratch.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
