"""2,000 broken configs: each gets an answer in words, none a traceback, none hangs."""

from __future__ import annotations

import os
import random
import shutil
import signal
from pathlib import Path

import pytest

from ai4sdk.cli import main

CASES = int(os.environ.get("AI4SDK_FUZZ_CASES", "2000"))
BATCH = 100
SECONDS = 20
"""Longest time for one config before it counts as hanging; a thousand times what it needs."""

VALUES = [
    "null", "~", "true", "-1", "1e999", ".nan", "''", '"', "'", "[", "]", "{", "}", "[1, 2", "{a: b}", "{a: {b: [c]}}", "!!python/object:os.system",
    "!!binary x", "&a", "*a", "*", "<<: *a", "${", "${}", "${x}", "${a.b.c}", "${oc.env:NOPE}", "${oc.env}", "${nope:1}", "${secret:}", "${data:x}",
    "${data:features}", "${module}", "${dataset.uri}", "???", "0x", "1_000", "2024-01-01", "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"), "\u0000", "\t", " ", "a: b: c", "- x", "|", ">",
    "|\n  text", "# c", "%", "@", "`", "9" * 400, "x" * 5000, "net.Net", "os.system", "builtins.eval", "..", "net.", ".net", "torch.optim.Adamm",
    "torch", "12 elephants", "16GiB", "2h", "-2h", "file:///etc/passwd", "s3://", "http://", "webdav://x", "storage://", "/dev/zero", "/proc/self/mem", "\\", "a\\",
]  # fmt: skip
KEYS = [
    "name", "seed", "module", "module._target_", "module.width", "module._args_", "module._partial_", "dataset", "dataset.uri", "dataset.format",
    "dataset.label", "dataset.splits", "dataset.splits.method", "dataset.splits.train", "dataset.loader.batch_size", "dataset.options",
    "dataset._target_", "optimizer", "optimizer._target_", "optimizer.lr", "scheduler", "scheduler.schedule", "training", "training.max_epochs",
    "training.precision", "training.trainer", "training.callbacks", "training.early_stopping", "training.checkpoint.monitor", "training.freeze",
    "training.init_from", "hardware.memory", "hardware.wall_time", "hardware", "storage", "storage.protocol", "storage.options", "tracking.uri",
    "backend", "backend.kind", "backend.env", "runs", "defaults", "hydra", "hydra.run.dir", "x", "x.y.z", "", ".", "a..b", "@", "module@x", "optimizer@a.b",
]  # fmt: skip
FILES = [
    "configs/train.yaml",
    "configs/module/net.yaml",
    "configs/optimizer/adam.yaml",
    "configs/training/short.yaml",
    "net.py",
    "data.csv",
]


def mutate_text(text: str, rng: random.Random) -> str:
    """Break a file in one of the ways people and editors break files."""
    lines = text.splitlines(keepends=True) or [""]
    index = rng.randrange(len(lines))
    way = rng.randrange(9)
    if way == 0:
        position = rng.randrange(len(text) + 1)
        return text[:position] + rng.choice(VALUES) + text[position:]
    if way == 1:
        position = rng.randrange(max(1, len(text)))
        return text[:position] + text[position + rng.randint(1, 5) :]
    if way == 2:
        lines.insert(index, rng.choice(lines))
    elif way == 3:
        lines[index] = " " * rng.randint(1, 5) + lines[index]
    elif way == 4:
        lines[index] = lines[index].lstrip()
    elif way == 5 and ":" in lines[index]:
        lines[index] = lines[index].split(":")[0] + f": {rng.choice(VALUES)}\n"
    elif way == 6:
        lines.append(f"{rng.choice(KEYS)}: {rng.choice(VALUES)}\n")
    elif way == 7:
        return text[: rng.randrange(len(text) + 1)]
    else:
        del lines[index]
    return "".join(lines)


def break_project(folder: Path, rng: random.Random) -> list[str]:
    """Break one to three things; return the overrides to call with."""
    overrides = []
    for _ in range(rng.randint(1, 3)):
        if rng.random() < 0.5:
            path = folder / rng.choice(FILES)
            text = path.read_text(encoding="utf-8", errors="replace")
            path.write_bytes(mutate_text(text, rng).encode("utf-8", "surrogatepass"))
        else:
            sign = rng.choice(["", "", "", "+", "++", "~"])
            overrides.append(
                f"{sign}{rng.choice(KEYS)}{rng.choice(['=', '=', '=', '', '==', '@=', ' = '])}{rng.choice(VALUES)}"
            )
    return [override for override in overrides if not override.startswith("-")]


def _hang(*_: object) -> None:
    raise TimeoutError("no answer")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("batch", range(max(1, CASES // BATCH)))
def test_no_config_breaks_the_command_line(project, tmp_path_factory, monkeypatch, capsys, batch):
    pristine = tmp_path_factory.mktemp("pristine") / "project"
    shutil.copytree(project, pristine)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    previous = signal.signal(signal.SIGALRM, _hang)
    try:
        for case in range(batch * BATCH, (batch + 1) * BATCH):
            rng = random.Random(case)
            shutil.copytree(pristine, project, dirs_exist_ok=True)
            overrides = break_project(project, rng)
            signal.alarm(SECONDS)
            status = main(["plan", "config=train", *overrides])
            signal.alarm(0)
            output = capsys.readouterr()
            told = f"case {case}: {overrides}\n{output.err}"
            assert status in (0, 2, 3, 6, 7), told
            assert "Traceback" not in output.err, told
            assert status == 0 or output.err.strip(), told
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
