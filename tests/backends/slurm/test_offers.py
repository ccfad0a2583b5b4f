"""What a cluster does not have is refused, all at once, and what it has never is."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import ai4sdk
from ai4sdk.backends.slurm.offers import problems, read_offers, read_span

SINFO = """\
cpu*|1-00:00:00|40|64|256000|100000|(null)|skylake,ib
gpu|2-00:00:00|4|32|512000|0|gpu:A100:4(S:0-1),shard:8|icelake,ib
gpu|2-00:00:00|2|32|512000|0|gpu:v100:8(S:0,1)|skylake
"""
LINE = st.text(st.characters(exclude_categories=("Cc", "Zl", "Zp", "Cs")))
WORD = st.text("abcxyz019_-", min_size=1, max_size=8)


def found(*overrides: str, default: str | None = None) -> dict[str, str]:
    words = [f"++{word}" if word.startswith("backend.") else f"+{word}" for word in overrides]
    asked = " ".join(overrides)
    if "gpus: " in asked or "nodes: " in asked:
        words += ["++training.mode=ddp", *([] if "gpus: " in asked else ["++training.processes=1"])]
    plan = ai4sdk.plan("train", "+backend={kind: slurm}", *words)
    return {f"{one.key}": f"{one.message} → {one.fix}" for one in problems(plan, read_offers(SINFO), default)}


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("hardware={cpus: 64, memory: 250GB, disk: 90GB, nodes: 40, wall_time: 24h}",),
        ("backend.partition=gpu", "hardware={gpus: 8, gpu_model: V100, nodes: 6, wall_time: 48h}"),
        ("backend.partition='cpu,gpu'", "hardware={gpus: 4, gpu_model: a100}"),
        ("backend.constraint='[skylake*2&ib]|icelake'",),
        ("backend.qos=long", "hardware={wall_time: 90d}"),
        ("backend.directives={reservation: course}", "hardware={cpus: 500}"),
    ],
)
def test_what_the_cluster_has_is_never_refused(project: Path, overrides: tuple[str, ...]) -> None:
    assert found(*overrides) == {}


def test_all_that_it_does_not_have_is_told_at_once(project: Path) -> None:
    told = found(
        "hardware={cpus: 65, memory: 1TB, disk: 1TB, nodes: 41, wall_time: 25h, gpus: 1}",
        "backend.partition=cpu",
        "backend.constraint='skylak&ib'",
    )
    assert set(told) == {
        "backend.constraint",
        "backend.gres",
        *(f"hardware.{name}" for name in ("cpus", "memory", "disk", "nodes", "wall_time")),
    }
    assert told["backend.constraint"].endswith("→ backend.constraint=skylake")
    assert told["hardware.wall_time"].endswith("→ hardware.wall_time=86400s")


def test_names_that_were_nearly_right_are_proposed(project: Path) -> None:
    told = found("backend.partition=gpus", "hardware={gpus: 1, gpu_model: A10}")
    assert told["backend.partition"].endswith("→ backend.partition=gpu")
    assert told["hardware.gpu_model"].endswith("→ hardware.gpu_model=a100")


def test_the_partition_of_the_environment_counts_where_the_plan_names_none(project: Path) -> None:
    assert found("hardware={gpus: 1}", default="gpu") == {}
    assert set(found("hardware={gpus: 1}", "backend.partition=cpu", default="gpu")) == {"backend.gres"}


@given(st.text(st.characters(exclude_characters="|")), st.integers(0, 6))
def test_an_answer_that_is_not_understood_says_nothing(text: str, bars: int) -> None:
    assert read_offers("|".join([text] * (bars + 1))) == []


@given(LINE, LINE)
@example("gpu:²", "")
def test_whatever_resources_and_features_are_called_the_rest_is_understood(gres: str, features: str) -> None:
    (offer,) = read_offers(f"p|1:00|3|1|1|1|{gres}|{features}")
    assert (offer.partition, offer.limit, offer.nodes, offer.cpus) == ("p", 60.0, 3, 1)


@given(st.dictionaries(st.tuples(WORD, WORD.filter(lambda word: not word.isdigit())), st.integers(1, 99), min_size=1))
def test_resources_are_read_as_sinfo_writes_them(gres: dict[tuple[str, str], int]) -> None:
    text = ",".join(f"{name}:{kind}:{count}(S:0,1)" for (name, kind), count in gres.items())
    assert read_offers(f"p|infinite|1|1|1|1|{text}|(null)")[0].gres == gres


@given(st.integers(0, 400), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_limits_are_read_as_sinfo_writes_them(days: int, hours: int, minutes: int, seconds: int) -> None:
    text = f"{days}-{hours:02}:{minutes:02}:{seconds:02}" if days else f"{hours}:{minutes:02}:{seconds:02}"
    assert read_span(text) == ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    assert read_span("infinite") == math.inf
