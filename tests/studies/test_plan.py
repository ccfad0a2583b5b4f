"""Points of any config, whatever refers to what, are those that Hydra's rules give; and axes no study could keep."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ai4sdk.config.compose import Composition, compose_layers
from ai4sdk.config.delta import PointComposer
from ai4sdk.config.encode import encode, texts_of, unwritable_keys
from ai4sdk.config.project import Project, find_project
from ai4sdk.errors import ConfigError
from ai4sdk.studies.plan import make_study, read_study_file

REFERENCES = [
    "${a}", "${b.c}", "${.a}", "${..b}", "${g}", "${g.a}", "${a}-x", "${oc.env:HOME}", "${oc.select:zz,3}", "${secret:PW}",
    "${oc.select:a,3}", "${oc.select:b.c,x}", "${oc.select:g.a}", "${a}${b.c}", "\\${a}",
    "${data:rows}", "${l[0]}", "${l.0}", "???", "${oc.dict.keys:g}", "${k.n}", "${k}",
]  # fmt: skip
NAMES = st.sampled_from("abcd")
SCALARS = st.one_of(
    st.integers(-3, 3), st.floats(-1, 1), st.booleans(), st.none(), st.text("xyz: ", max_size=3),
    st.sampled_from(REFERENCES), st.sampled_from(REFERENCES),
)  # fmt: skip
TREES = st.dictionaries(
    NAMES,
    st.recursive(
        SCALARS, lambda inner: st.dictionaries(NAMES, inner, max_size=3) | st.lists(inner, max_size=3), max_leaves=6
    ),
    max_size=4,
)
OPTIONS = st.sampled_from(["o0", "o1", "missing"])
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(NAMES, SCALARS, max_size=2)
GROUPS = ["g", "g@h", "+g@h", "g@k", "q/r", "+q/r"]
KEYS = [
    "a", "b", "b.c", "+z", "+a.q", "++a.b", "c.d", "g.a", "g.b.c", "+g.n.m", "l", "l.0", "k.n", "h.a", "k", "++k.n",
    "seed", "training", "training.max_epochs", "sweep.search",
]  # fmt: skip
POINTS = st.dictionaries(st.sampled_from([*GROUPS, *KEYS]), st.none(), max_size=3).flatmap(
    lambda keys: st.fixed_dictionaries({key: OPTIONS if key in GROUPS else VALUES for key in keys})
)
FIXED = ["a=1", "+e=1", "g=o1", "~b", "name=x", "g@h=o1", "++k.n=2"]

_counter = itertools.count()


def all_of(composition: Composition) -> tuple[Any, ...]:
    """Everything that later steps read, where 1 and true are two things and the order of keys counts."""
    lines = [override.input_line for override in composition.overrides]
    values = json.dumps(composition.values, default=str)
    return values, composition.layers, composition.choices, lines, composition.problems


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    options=st.lists(TREES, min_size=2, max_size=2),
    body=TREES,
    own=TREES,
    other=TREES,
    items=st.lists(SCALARS, max_size=2),
    self_first=st.booleans(),
    fixed=st.lists(st.sampled_from(FIXED), max_size=2, unique=True),
    points=st.lists(POINTS, min_size=2, max_size=5),
)
@example(options=[{}, {}], body={}, own={}, other={}, items=[], self_first=False, fixed=["g=o1", "a=1"], points=[{}])
def test_points_of_any_config_are_composed_as_if_each_were_the_only_one(
    tmp_path: Path, options, body, own, other, items, self_first, fixed, points
):
    folder = tmp_path / f"case{next(_counter)}" / "configs"
    for group in ("g", "q/r"):
        (folder / group).mkdir(parents=True)
        for index, option in enumerate(options):
            (folder / group / f"o{index}.yaml").write_text(yaml.safe_dump(option))
    defaults: list[Any] = [{"g": "o0"}, {"g@h": "o1"}]
    defaults.insert(0 if self_first else 2, "_self_")
    (folder / "main.yaml").write_text(yaml.safe_dump({"defaults": defaults, **body, "g": own, "k": other, "l": items}))
    project = Project(folder.parent)
    composer = PointComposer("main", fixed, project)
    for params in points:
        alone = compose_layers("main", [*fixed, *texts_of(params)], project)
        assert all_of(composer.compose(params)) == all_of(alone), params
    thawed = PointComposer.thaw(json.loads(json.dumps(composer.freeze())), project)
    for params in points:
        assert all_of(thawed.compose(params)) == all_of(composer.compose(params)), params


@given(st.dictionaries(st.text(max_size=5) | st.integers() | st.booleans(), st.integers(), max_size=2))
def test_mappings_are_read_back_as_they_were_or_known_to_be_unwritable(value):
    if not unwritable_keys([value]):
        assert OverridesParser.create().parse_override(f"x={encode(value)}").value() == value


@pytest.mark.parametrize("value", ["{1: a},{2: b}", "[{x: {1: a}}],[]"])
def test_an_axis_that_could_not_be_kept_in_a_file_is_refused(project, value):
    with pytest.raises(ConfigError) as raised:
        make_study("train", [f"+module.table={value}"])
    assert "mapping with the key 1" in raised.value.problems[0].message


def test_numbers_without_end_are_values_like_others(project, tmp_path):
    study = make_study("train", ["optimizer.lr=inf,1.0,-inf", "+optimizer.eps=nan,1e-8"])
    assert len({point.digest for point in study.points}) == 6
    (tmp_path / "study.json").write_text(study.to_json())
    again = read_study_file(tmp_path / "study.json", find_project())
    for point in study.points:
        plan = again.planner.plan(point.params)
        assert plan.digest == point.digest
        assert repr(plan.job["optimizer"]["lr"]) == repr(point.params["optimizer.lr"])
