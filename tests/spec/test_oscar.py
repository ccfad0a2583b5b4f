"""Services that OSCAR would not take, or that would not work, are refused before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from ai4sdk.spec import OscarBackend

ADDRESS = {"cluster": "https://inference.example.org", "image": "fish:1"}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"cluster": "inference.example.org"}, "no cluster"),
        ({"cluster": "https://inference.example.org"}, "needs an image"),
        ({"token": "abc"}, "pattern"),
        ({"password": "${secret:P}"}, "go together"),
        ({"username": "u", "password": "${secret:P}", "token": "${secret:T}"}, "not both"),
        ({"service": "Fish"}, "no name of a service"),
        ({"service": "f" * 40}, "at most 39"),
        ({"service": "1fish"}, "a letter at first"),
        ({"package": "/srv/my model"}, "pattern"),
        ({"package": "/srv/$(reboot)"}, "pattern"),
        ({"cpu": 0}, "greater than 0"),
        ({"input": [{"path": "fish/in"}]}, "needs an output"),
        ({"input": [{"path": "fish/in"}], "output": [{"path": "fish/in/out"}]}, "results would be inputs"),
        ({"output": [{"path": "fish"}]}, "write BUCKET/FOLDER"),
        ({"input": [{"path": "fish/in"}], "output": [{"path": "/fish/in/"}]}, "results would be inputs"),
        ({"output": [{"path": "../fish"}]}, "no place in a storage"),
        ({"output": [{"path": "fish/out", "prefix": ["logs/"]}]}, "no output takes results"),
        ({"output": [{"path": "fish/out", "suffix": [".csv"]}]}, "no output takes results"),
        ({"output": [{"path": "fish/out", "storage_provider": "s3.ours"}]}, "not among storage_providers"),
        ({"output": [{"path": "fish/out", "storage_provider": "ftp.ours"}]}, "pattern"),
        (
            {"storage_providers": {"s3": {"ours": {"access_key": "AKIA", "secret_key": "${secret:S}"}}}},
            "pattern",
        ),
        ({"storage_providers": {"s3": {"ours": {"access_key": "${secret:S}"}}}}, "needs secret_key"),
        ({"storage_providers": {"ftp": {}}}, "no kind 'ftp'"),
        (
            {
                "storage_providers": {
                    "s3": {"ours": {"access_key": "${secret:S}", "secret_key": "${secret:S}", "login": "x"}}
                }
            },
            "has no login",
        ),
        ({"environment": {"secrets": {"TOKEN": "sesame"}}}, "must be a reference"),
        ({"environment": {"variables": {"a-b": "1"}}}, "no name of an environment variable"),
        ({"environment": {"variables": {"EVENT": "1"}}}, "is set by ai4sdk or OSCAR"),
        ({"allowed_users": ["ana"]}, "visibility: restricted"),
        ({"synchronous": {"min_scale": 3, "max_scale": 1}}, "below min_scale"),
        ({"expose": {"min_scale": 3, "max_scale": 1}}, "below min_scale"),
        ({"expose": {"min_scale": 0}}, "greater than or equal to 1"),
        ({"environment": {"variables": {"TMP_OUTPUT_DIR": "/x"}}}, "is set by ai4sdk or OSCAR"),
        ({"labels": {"team": "the fish"}}, "no value of a label"),
        ({"labels": {"the team": "fish"}}, "no name that Kubernetes takes"),
        ({"annotations": {"-note": "it is mine"}}, "no name that Kubernetes takes"),
        ({"volume": {"mount_path": "/data"}}, "needs a size"),
        (
            {"volume": {"mount_path": "/data", "name": "models", "lifecycle_policy": "retain"}},
            "of a volume that is made",
        ),
        ({"volume": {"mount_path": "/data", "name": "My models"}}, "pattern"),
        ({"volume": {"mount_path": "/oscar/bin/x", "name": "models"}}, "is OSCAR's own"),
        ({"mount": {"path": "models"}}, "mounts nothing for synchronous calls"),
        (
            {
                "mount": {"path": "models"},
                "expose": {},
                "input": [{"path": "fish/in"}],
                "output": [{"path": "fish/out"}],
            },
            "end well whatever happened",
        ),
        (
            {"input": [{"path": "fish/in"}, {"path": "fish/more"}], "output": [{"path": "fish/out"}]},
            "two inputs are in the bucket fish",
        ),
        ({"memmory": "1GiB"}, "Extra inputs"),
    ],
)
def test_a_mistake_is_told(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        OscarBackend.model_validate({"kind": "oscar", **values})


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"input": [{"path": "fish/in"}], "output": [{"path": "fish/out"}]},
        {"input": [{"path": "fish/in"}], "output": [{"path": "fish/in-results"}]},
        {"synchronous": {"min_scale": 1}},
        {"input": [{"path": "fish/in"}, {"path": "more/in"}], "output": [{"path": "fish/out"}]},
        {"mount": {"path": "models/fish"}, "expose": {}},
        {"labels": {"example.org/team": "fish_1", "empty": ""}, "annotations": {"note": "it is mine"}},
        {**ADDRESS, "token": "${secret:OSCAR_TOKEN}"},
    ],
)
def test_what_works_is_taken(values: dict[str, Any]) -> None:
    OscarBackend.model_validate({"kind": "oscar", **values})


def test_paths_and_addresses_are_kept_in_one_form() -> None:
    options = OscarBackend.model_validate(
        {"kind": "oscar", **ADDRESS, "cluster": "https://a.example.org/", "output": [{"path": "/fish/out/"}]}
    )
    assert (options.cluster, options.output[0].path) == ("https://a.example.org", "fish/out")
