"""Composing follows Hydra's rules, and reads the project before what we ship."""

from __future__ import annotations

import itertools
import string
from pathlib import Path

import pytest
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from ai4sdk.config.compose import compose_layers
from ai4sdk.config.project import Project
from ai4sdk.errors import NotFound


def test_layers_and_overrides_make_one_mapping(project):
    composed = compose_layers("train", ["optimizer.lr=0.5", "module.width=16", "+module.features=3"])
    assert composed.problems == ()
    assert composed.values["optimizer"] == {"_target_": "torch.optim.Adam", "lr": 0.5}
    assert composed.values["module"] == {"_target_": "net.Net", "width": 16, "features": 3}
    assert composed.choices["optimizer"] == "adam"


def test_a_group_option_is_chosen_on_the_command_line(project):
    assert compose_layers("train", ["optimizer=sgd"]).values["optimizer"]["momentum"] == 0.9


def test_keys_of_the_models_need_no_plus(project):
    composed = compose_layers("train", ["training.precision=64-true", "hardware.memory=16GiB"])
    assert composed.problems == ()
    assert composed.values["hardware"] == {"memory": "16GiB"}


def test_a_key_is_deleted(project):
    assert "width" not in compose_layers("train", ["~module.width"]).values["module"]


def test_interpolations_and_environment_are_resolved_and_secrets_stay_references(project, monkeypatch):
    monkeypatch.setenv("WIDTH", "5")
    composed = compose_layers(
        "train",
        ["module.width='${oc.decode:${oc.env:WIDTH}}'", "description=${name}", "storage.password=${secret:PW}"],
    )
    assert composed.problems == ()
    assert composed.values["module"]["width"] == 5
    assert composed.values["description"] == "train"
    assert composed.values["storage"]["password"] == "${secret:PW}"


def test_the_projects_configs_come_before_ours(project, write):
    write({"configs/quickstart.yaml": "defaults:\n  - module: net\n  - _self_\nname: mine\n"})
    assert compose_layers("quickstart").values["name"] == "mine"


def test_a_config_is_found_by_path_and_its_folder_comes_first(project, write, tmp_path_factory):
    elsewhere = write(
        {"job.yaml": "defaults:\n  - training: tiny\n  - _self_\n", "training/tiny.yaml": "max_epochs: 1\n"},
        tmp_path_factory.mktemp("elsewhere"),
    )
    assert compose_layers(str(elsewhere / "job.yaml")).values["training"] == {"max_epochs": 1}


def test_a_misspelt_config_gets_the_nearest_name(project):
    with pytest.raises(NotFound, match=r"config=train"):
        compose_layers("trian")


def test_a_project_is_found_from_its_subfolders(project, monkeypatch):
    (project / "deep" / "down").mkdir(parents=True)
    monkeypatch.chdir(project / "deep" / "down")
    assert compose_layers("train").values["name"] == "train"


def test_numbers_are_read_as_hydra_reads_them(project, write):
    write({"configs/numbers.yaml": "a: 1e-3\nb: 0x10\nc: 2024-01-01\nd: yes\ne: .5\nf: 1_000\n"})
    ours = compose_layers("numbers").values
    assert ours == OmegaConf.to_container(OmegaConf.load(project / "configs/numbers.yaml"))


# The same layers through Hydra's own front door.

_names = st.sampled_from(["a", "b", "c", "d"])
_scalars = st.one_of(
    st.integers(-5, 5),
    st.floats(-1, 1, allow_nan=False),
    st.booleans(),
    st.none(),
    st.text(string.ascii_letters, max_size=4),
)
_values = st.recursive(
    _scalars, lambda inner: st.dictionaries(_names, inner, max_size=3) | st.lists(inner, max_size=3), max_leaves=6
)
_layers = st.dictionaries(_names, _values, max_size=4)
_counter = itertools.count()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    options=st.lists(_layers, min_size=2, max_size=3),
    body=_layers,
    own=_layers,
    self_first=st.booleans(),
    choice=st.integers(0, 2),
    added=st.tuples(st.sampled_from(["x", "y.z", "g.new"]), st.integers(0, 9)),
)
def test_values_are_those_of_hydra(tmp_path: Path, options, body, own, self_first, choice, added):
    folder = tmp_path / f"case{next(_counter)}" / "configs"
    (folder / "g").mkdir(parents=True)
    for index, option in enumerate(options):
        (folder / "g" / f"o{index}.yaml").write_text(yaml.safe_dump(option))
    defaults = [{"g": "o0"}]
    defaults.insert(0 if self_first else 1, "_self_")
    (folder / "main.yaml").write_text(yaml.safe_dump({"defaults": defaults, **body, "g": own}))
    overrides = [f"g=o{choice % len(options)}", f"+{added[0]}={added[1]}"]

    GlobalHydra.instance().clear()
    ours = compose_layers("main", overrides, Project(folder.parent))
    try:
        with initialize_config_dir(str(folder), version_base="1.3"):
            theirs = OmegaConf.to_container(hydra_compose("main", overrides))
    except HydraException:
        assert ours.problems, "what Hydra refuses, we refuse"
    else:
        assert ours.problems == ()
        assert ours.values == theirs
