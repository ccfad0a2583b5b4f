"""Every config that ships composes with plain Hydra, is a valid job, and says what it is."""

import inspect
import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from ai4sdk.catalog.shipped import shipped_configs, shipped_modules
from ai4sdk.spec import Job

FOLDERS = [shipped_configs(), *sorted(shipped_modules().glob("*/configs"))]
FILES = [file for folder in FOLDERS for file in sorted(folder.rglob("*.yaml"))]
JOBS = [file.stem for folder in FOLDERS for file in sorted(folder.glob("*.yaml")) if file.stem != "base"]
OPTIONS = [(file.parent.name, file.stem) for folder in FOLDERS for file in sorted(folder.glob("*/*.yaml"))]
GROUPS = {
    "backend",
    "dataset",
    "federation",
    "hardware",
    "module",
    "optimizer",
    "scheduler",
    "serving",
    "storage",
    "sweep",
    "tracking",
    "training",
}


def composed(config, *overrides):
    """Compose with Hydra itself; what the user still has to give becomes ``given``, references stay as they are."""
    for name in ("secret", "data"):
        if not OmegaConf.has_resolver(name):
            OmegaConf.register_new_resolver(name, lambda what, name=name: f"${{{name}:{what}}}")
    path = ",".join(f"file://{folder}" for folder in FOLDERS)
    home = next(folder for folder in FOLDERS if (folder / f"{config}.yaml").is_file())
    with initialize_config_dir(str(home), version_base="1.3"):
        config = compose(config, [f"hydra.searchpath=[{path}]", *overrides])
    for key in OmegaConf.missing_keys(config):
        OmegaConf.update(config, key, "given")
    return OmegaConf.to_container(config, resolve=True)


@pytest.mark.parametrize("name", JOBS)
def test_every_job_is_valid(name):
    job = Job.model_validate(composed(name))
    assert job.name == name


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_can_be_chosen_in_a_job(group, option):
    Job.model_validate(composed("quickstart", f"{group}={option}"))


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("override", ["optimizer=sgd", "optimizer=module", "training=quick", "tracking=none"])
def test_jobs_leave_the_choice_of_options_to_the_command_line(name, override):
    Job.model_validate(composed(name, override, "scheduler=none"))


def test_all_groups_are_there():
    assert {group for group, _ in OPTIONS} == GROUPS


def test_base_lacks_nothing_but_a_module_and_a_dataset():
    job = composed("base")
    assert not {"module", "dataset"} & set(job)
    Job.model_validate({**job, "module": {"_target_": "a.b"}, "dataset": {"uri": "x.csv"}})


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_every_file_begins_with_a_line_that_describes_it_and_names_its_schema(file):
    lines = file.read_text(encoding="utf-8").splitlines()
    whole_job = file.parent.name == "configs" or lines[0] == "# @package _global_"
    description, schema = [line for line in lines if not line.startswith("# @package")][:2]
    assert description.startswith("# ")
    assert len(description) <= 110
    prefix = "# yaml-language-server: $schema="
    assert schema.startswith(prefix)
    expected = shipped_configs() / "schemas" / f"{'job' if whole_job else file.parent.name}.json"
    assert Path(file.parent, schema.removeprefix(prefix)).resolve() == expected.resolve()


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_an_editor_that_checks_a_file_by_the_schema_it_names_finds_no_fault(file):
    text = file.read_text(encoding="utf-8")
    named = re.search(r"\$schema=(\S+)", text)[1]
    schema = json.loads((file.parent / named).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(yaml.safe_load(text))


def test_a_description_is_given_once():
    described = [file.read_text(encoding="utf-8").splitlines()[0] for file in FILES]
    described = [line for line in described if not line.startswith("# @package")]
    assert len(set(described)) == len(described)


def test_left_to_the_module_there_is_no_optimizer_and_no_schedule():
    job = Job.model_validate(composed("digits"))
    assert job.optimizer is None
    assert job.scheduler is None


def test_an_optimizer_takes_the_learning_rate_of_the_module_where_it_has_one():
    assert composed("digits", "optimizer=adamw", "module.learning_rate=0.5")["optimizer"]["lr"] == 0.5
    assert composed("digits", "optimizer=adamw", "~module.learning_rate")["optimizer"]["lr"] == 0.001
    assert composed("digits", "optimizer=adamw", "optimizer.lr=0.25")["optimizer"]["lr"] == 0.25


def test_the_cosine_ends_with_the_training():
    assert composed("quickstart", "training.max_epochs=7")["scheduler"]["schedule"]["T_max"] == 7


def test_a_quick_training_is_quick_whatever_the_job_says():
    assert composed("digits")["training"]["max_epochs"] == 40
    assert composed("digits", "training=quick")["training"]["max_steps"] == 20


def test_credentials_are_references():
    storages = [
        composed("quickstart", f"storage={option}")["storage"] for group, option in OPTIONS if group == "storage"
    ]
    written = [
        value for storage in storages for key, value in storage.items() if key in ("username", "password", "token")
    ]
    assert any(written)
    assert all(value is None or value.startswith("${secret:") for value in written)


@pytest.fixture
def modules_on_path(monkeypatch):
    for folder in sorted(shipped_modules().iterdir()):
        monkeypatch.syspath_prepend(str(folder))


@pytest.mark.parametrize("option", [option for group, option in OPTIONS if group == "module"])
def test_every_module_takes_the_arguments_its_option_gives(option, modules_on_path):
    arguments = composed("quickstart", f"module={option}")["module"]
    arguments = {key: 3 if str(value).startswith("${data:") else value for key, value in arguments.items()}
    module = get_class(arguments["_target_"])
    assert set(arguments) - {"_target_"} <= set(inspect.signature(module).parameters)
    assert instantiate(arguments, _convert_="all").configure_optimizers() is not None


@pytest.mark.parametrize("option", [option for group, option in OPTIONS if group == "optimizer" and option != "module"])
def test_every_optimizer_takes_the_arguments_its_option_gives(option):
    import torch

    config = composed("quickstart", f"optimizer={option}")["optimizer"]
    assert instantiate(config, [torch.nn.Parameter(torch.zeros(1))]).defaults["lr"] == config["lr"]


@pytest.mark.parametrize("option", [option for group, option in OPTIONS if group == "scheduler" and option != "none"])
def test_every_schedule_takes_the_arguments_its_option_gives(option):
    import torch

    config = composed("quickstart", f"scheduler={option}")["scheduler"]["schedule"]
    instantiate(config, torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))


@pytest.mark.parametrize("option", ["digits", "diabetes", "wine"])
def test_every_bundled_dataset_has_the_columns_and_classes_its_job_says(option):
    job = composed(option)
    x, y = instantiate({key: value for key, value in job["dataset"].items() if key not in ("splits", "loader")})
    module = job["module"]
    assert x.shape[1] == module.get("in_features", 64)
    classes = module.get("num_classes", module.get("out_features"))
    assert classes == (1 if job["task"] == "regression" else len(set(y)))
