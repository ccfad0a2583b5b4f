"""Composing and validating a config of 1,000 keys in 30 files, beside bare Hydra's compose of the same files.

    python benchmarks/compose.py [ROUNDS]

Ours composes, finds every mistake there might be, and validates against the models; Hydra composes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from side_by_side import measure, show

from ai4sdk.config.load import load_job
from ai4sdk.config.project import Project

FILES, KEYS = 30, 1000


def write_configs(folder: Path) -> None:
    """Write a job of 30 files; most of its keys are arguments of the module, as in a big model's config."""
    each = KEYS // FILES
    defaults: list[object] = []
    for number in range(FILES - 1):
        group = folder / f"part{number}"
        group.mkdir(parents=True)
        values = {f"key{key}": key * 0.5 if key % 2 else f"text {key}" for key in range(each)}
        text = f"# @package module.part{number}\n" + yaml.safe_dump(values)
        (group / "option.yaml").write_text(text)
        defaults.append({f"part{number}": "option"})
    job = {
        "defaults": [*defaults, "_self_"],
        "name": "big",
        "module": {"_target_": "package.Module"},
        "dataset": {"uri": "data.csv"},
        "training": {"max_epochs": 3, "precision": "32-true"},
    }
    (folder / "big.yaml").write_text(yaml.safe_dump(job, sort_keys=False))


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root, "configs")
        write_configs(folder)
        project = Project(Path(root))
        overrides = ["training.max_epochs=5", "module.part3.key4=7"]

        def hydra() -> object:
            with initialize_config_dir(str(folder), version_base="1.3"):
                return compose("big", overrides)

        contenders = {
            "hydra compose": hydra,
            "ai4sdk compose and validate": lambda: load_job("big", overrides, project),
        }
        show(f"a config of {KEYS:,} keys in {FILES} files", measure(contenders, rounds), "hydra compose")


if __name__ == "__main__":
    main()
