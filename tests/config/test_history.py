"""`why` knows every layer that set a value."""

from __future__ import annotations

from ai4sdk.config.compose import compose_layers
from ai4sdk.config.history import history


def places(key: str, *overrides: str, config: str = "train"):
    return [str(origin) for origin in history(compose_layers(config, list(overrides)), key)]


def test_layers_come_in_the_order_they_are_applied(project, write):
    write({"configs/high.yaml": "defaults:\n  - train\n  - _self_\ntraining:\n  max_epochs: 5\n"})
    assert places("training.max_epochs", "training.max_epochs=9", config="high") == [
        "configs/training/short.yaml:1:1",
        "configs/high.yaml:5:3",
        "command line: training.max_epochs=9",
    ]


def test_an_option_that_was_not_chosen_does_not_count(project):
    assert places("optimizer.momentum") == []
    assert places("optimizer.momentum", "optimizer=sgd") == ["configs/optimizer/sgd.yaml:4:1"]


def test_a_section_replaced_by_a_plain_value_counts(project, write):
    write({"configs/none.yaml": "defaults:\n  - train\n  - _self_\noptimizer: null\n"})
    assert places("optimizer.lr", config="none")[-1] == "configs/none.yaml:4:1"


def test_a_package_moves_a_files_keys(project, write):
    write({"configs/module/wide.yaml": "# @package _global_\nmodule:\n  _target_: net.Net\n  width: 99\n"})
    assert places("module.width", "module=wide") == ["configs/module/wide.yaml:4:3"]
