"""Creating and changing services: nothing is sent in vain, nothing that the cluster added is lost."""

from __future__ import annotations

from typing import Any

import pytest

from ai4sdk.backends.oscar.apply import apply, buckets_of, differences, remove, replacement
from ai4sdk.backends.oscar.client import Cluster
from ai4sdk.errors import EnvironmentFault, UsageError

BOTH: dict[str, Any] = {"input": [{"path": "fish/in"}], "output": [{"path": "fish/out"}]}


class Recorded:
    """A cluster of one service, which gives it a new token at each update, as OSCAR did before version 4."""

    def __init__(self, *, forgetful: bool = False) -> None:
        self.there: dict[str, Any] | None = None
        self.did: list[str] = []
        self.forgetful = forgetful
        self.full = False

    def service(self, name: str) -> dict[str, Any] | None:
        return self.there

    def create(self, service: dict[str, Any]) -> None:
        self.did.append("create")
        if self.full:
            raise EnvironmentFault("quota exceeded", hint="ask for less")
        self.there = {**service, "token": "first", "owner": "ana", "vo": "vo.example.org"}

    def update(self, service: dict[str, Any]) -> None:
        self.did.append("update")
        self.there = {**service, **({"token": "second"} if self.forgetful else {})}

    def remove(self, name: str) -> None:
        self.did.append("remove")
        self.there = None


def test_a_service_is_created_left_and_changed(stand_in: Cluster, defined: Any) -> None:
    assert apply(stand_in, defined(**BOTH)).did == "created"
    token = stand_in.known("pond")["token"]
    assert apply(stand_in, defined(**BOTH)).did == "left as it is"
    done = apply(stand_in, defined(**BOTH, memory="3GiB", log_level="DEBUG"))
    assert (done.did, done.changed, done.warnings) == ("updated", ("memory", "log_level"), ())
    assert stand_in.known("pond")["token"] == token


def test_nothing_is_sent_if_nothing_differs(defined: Any) -> None:
    cluster: Any = Recorded()
    for _ in range(3):
        apply(cluster, defined(**BOTH))
    assert cluster.did == ["create"]
    apply(cluster, defined(**BOTH), force=True)
    assert cluster.did == ["create", "update"]


def test_what_the_cluster_added_is_sent_back(defined: Any) -> None:
    cluster: Any = Recorded()
    apply(cluster, defined(**BOTH))
    apply(cluster, defined(**BOTH, cpu=2))
    assert {name: cluster.there[name] for name in ("token", "owner", "vo")} == {
        "token": "first",
        "owner": "ana",
        "vo": "vo.example.org",
    }
    assert cluster.there["input"] == defined(**BOTH).service["input"]


def test_a_new_token_is_told_with_what_it_breaks(defined: Any) -> None:
    cluster: Any = Recorded(forgetful=True)
    apply(cluster, defined(**BOTH))
    (warning,) = apply(cluster, defined(**BOTH, cpu=2)).warnings
    assert "no longer start it" in warning
    assert apply(cluster, defined(**BOTH, cpu=2), recreate=True, with_buckets=True).did == "recreated"
    assert cluster.did == ["create", "update", "remove", "create"]


def test_something_left_out_is_a_difference(stand_in: Cluster, defined: Any) -> None:
    apply(stand_in, defined(**BOTH, labels={"team": "fish"}))
    done = apply(stand_in, defined(**BOTH))
    assert (done.did, done.changed) == ("updated", ("what is left out now",))
    assert "team" not in stand_in.known("pond")["labels"]


def test_a_change_by_somebody_else_is_a_difference(stand_in: Cluster, defined: Any) -> None:
    apply(stand_in, defined(**BOTH))
    there = stand_in.known("pond")
    stand_in.update({**there, "image": "other"})
    assert apply(stand_in, defined(**BOTH)).changed == ("image",)
    assert stand_in.known("pond")["image"] == "ai4sdk-rehearsal"


def test_secrets_are_sent_and_compared_by_name(
    stand_in: Cluster, defined: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "sesame")
    values = {"environment": {"secrets": {"API_TOKEN": "${secret:TOKEN}"}}}
    apply(stand_in, defined(**values))
    assert stand_in.known("pond")["environment"]["secrets"] == {"API_TOKEN": ""}
    assert apply(stand_in, defined(**values)).did == "left as it is"


def test_older_clusters_spell_variables_with_a_capital(defined: Any) -> None:
    definition = defined()
    there = {**definition.service, "environment": {"Variables": definition.service["environment"]["variables"]}}
    assert differences(definition, there) == []


def test_a_volume_is_not_changed_in_place(stand_in: Cluster, defined: Any) -> None:
    apply(stand_in, defined(volume={"mount_path": "/data", "size": "1GiB"}))
    for values in ({"volume": {"mount_path": "/data", "size": "2GiB"}}, {}):
        with pytest.raises(UsageError, match="cannot be changed in place") as caught:
            apply(stand_in, defined(**values))
        assert "--recreate" in str(caught.value.hint)


def test_what_the_cluster_adds_by_itself_is_kept_and_no_difference(defined: Any) -> None:
    values = {
        "volume": {"mount_path": "/data", "size": "1GiB"},
        "visibility": "restricted",
        "allowed_users": ["ana"],
    }
    definition = defined(**values)
    there = {
        **definition.service,
        "volume": {**definition.service["volume"], "name": "pond"},
        "allowed_users": ["ana", "owner"],
        "labels": {**definition.service["labels"], "kueue.x-k8s.io/queue-name": "q", "uid": "1", "team": "gone"},
    }
    assert differences(definition, there) == []
    sent = replacement(definition, there)
    assert sent["volume"] == {"mount_path": "/data", "size": "1Gi", "name": "pond"}
    assert sent["labels"] == {"kueue.x-k8s.io/queue-name": "q", "uid": "1", "ai4sdk.managed": "true"}
    assert differences(defined(**{**values, "allowed_users": ["bo"]}), there) == ["allowed_users"]


def test_the_definition_wins_over_what_is_kept(defined: Any) -> None:
    sent = replacement(defined(vo="ours"), {"vo": "theirs", "token": "t", "owner": "", "status": "x"})
    assert (sent["vo"], sent["token"], "owner" in sent, "status" in sent) == ("ours", "t", False, False)


def test_a_service_of_somebody_else_is_left_alone(stand_in: Cluster, defined: Any) -> None:
    theirs = {**defined(**BOTH, cpu=3).service, "labels": {"team": "fish"}}
    stand_in.create(theirs)
    for values in ({}, {"recreate": True, "with_buckets": True}):
        with pytest.raises(UsageError, match="which ai4sdk has not made") as caught:
            apply(stand_in, defined(**BOTH), **values)
        assert "backend.service=ANOTHER-NAME" in str(caught.value.hint)
    assert stand_in.known("pond")["cpu"] == "3"
    assert apply(stand_in, defined(**BOTH), force=True).did == "updated"
    assert stand_in.known("pond")["cpu"] == "1"


def test_nothing_is_removed_without_all_that_making_it_again_needs(stand_in: Cluster, defined: Any) -> None:
    apply(stand_in, defined())
    with pytest.raises(EnvironmentFault, match="NO_SUCH_SECRET is not set"):
        apply(stand_in, defined(environment={"secrets": {"TOKEN": "${secret:NO_SUCH_SECRET}"}}), recreate=True)
    assert stand_in.known("pond")["environment"]["secrets"] == {}


def test_a_service_that_is_removed_and_not_made_again_is_told_of(defined: Any) -> None:
    cluster: Any = Recorded()
    apply(cluster, defined())
    cluster.full = True
    with pytest.raises(EnvironmentFault, match="is removed, and was not made again: quota exceeded") as caught:
        apply(cluster, defined(cpu=2), recreate=True)
    assert caught.value.hint == "ask for less"


def test_buckets_and_what_is_in_them_go_only_if_that_is_said(stand_in: Cluster, defined: Any) -> None:
    apply(stand_in, defined(**BOTH))
    with pytest.raises(UsageError, match="all that is in them: fish") as caught:
        apply(stand_in, defined(**BOTH, cpu=2), recreate=True)
    assert "--recreate --with-buckets" in str(caught.value.hint)
    with pytest.raises(UsageError, match="all that is in them: fish") as caught:
        remove(stand_in, "pond")
    assert "rm pond --with-buckets" in str(caught.value.hint)
    assert stand_in.known("pond")["cpu"] == "1"
    remove(stand_in, "pond", with_buckets=True)
    apply(stand_in, defined())
    remove(stand_in, "pond")  # there is nothing that could be lost


def test_the_buckets_of_a_service_are_those_that_oscar_removes() -> None:
    service = {
        "input": [{"path": "fish/in", "storage_provider": "minio.default"}, {"path": "lake/in"}],
        "output": [{"path": "sea/out", "storage_provider": "s3.ours"}, {"path": "/fish/out/"}],
        "mount": {"path": "lake", "storage_provider": "minio.default"},
        "bucket_list": ["fish-ana"],
    }
    assert buckets_of(service) == ["fish", "fish-ana"]
    assert buckets_of({"name": "pond", "input": None, "mount": {"path": "", "storage_provider": ""}}) == []


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        (BOTH, {**BOTH, "input": [{"path": "fish/new"}]}, "the inputs"),
        (BOTH, {"output": BOTH["output"]}, "the inputs"),
        ({"output": BOTH["output"]}, BOTH, "the inputs"),
        ({}, {"expose": {}}, "whether there is a server"),
        ({"expose": {}}, {}, "whether there is a server"),
    ],
)
def test_what_oscar_does_not_change_in_place_is_refused(
    stand_in: Cluster, defined: Any, before: Any, after: Any, what: str
) -> None:
    apply(stand_in, defined(**before))
    with pytest.raises(UsageError, match=f"{what} of pond cannot be changed in place") as caught:
        apply(stand_in, defined(**after))
    assert "--recreate" in str(caught.value.hint)
    assert apply(stand_in, defined(**before)).did == "left as it is"


def test_which_files_of_an_input_are_meant_is_changed_in_place(stand_in: Cluster, defined: Any) -> None:
    apply(stand_in, defined(**BOTH))
    done = apply(stand_in, defined(**{**BOTH, "input": [{"path": "fish/in", "suffix": [".csv"]}]}))
    assert done.did == "updated"


def as_oscar_4_shows_it(service: dict[str, Any]) -> dict[str, Any]:
    """What a cluster answers: every field of its own type of services, those that were not said with their zeros."""
    labels = {
        **service["labels"],
        "oscar.grycap/user-service": "true",
        "oscar_service": service["name"],
        "applicationId": service["name"],
        "queue": f"root.oscar-queue.{service['name']}",
        "owner_name": "Ana",
        "vo": "vo.example.org",
    }
    expose = {"min_scale": 0, "max_scale": 0, "cpu_threshold": 0, "rewrite_target": False, "default_command": False}
    environment = service.get("environment") or {}
    secrets = dict.fromkeys(environment["secrets"], "") if "secrets" in environment else None
    volume = {"name": service["name"], "lifecycle_policy": "delete", **service["volume"]} if "volume" in service else {}
    return {
        **dict.fromkeys(("total_memory", "total_cpu", "ephemeral_storage_request", "interlink_node_name", "vo"), ""),
        **dict.fromkeys(("enable_gpu", "enable_sgx", "image_prefetch", "alpine", "file_stage_in"), False),
        **dict.fromkeys(("input", "output", "allowed_users", "bucket_list")),
        "expose": {**expose, "set_auth": False, "health_path": ""},
        "mount": {"storage_provider": "", "path": ""},
        **service,
        "environment": {"variables": environment.get("variables"), "secrets": secrets},
        "labels": labels,
        "storage_providers": {"minio": {"default": {"access_key": "hidden", "secret_key": "hidden"}}},
        **({"volume": volume} if volume else {}),
        "volume_status": {"enabled": bool(volume)},
        "token": "0" * 64,
        "owner": "ana@example.org",
        "namespace": "oscar-svc-ana",
    }


@pytest.mark.parametrize(
    "values",
    [
        {},
        BOTH,
        {"expose": {"max_scale": 2}, "mount": {"path": "models"}, "enable_gpu": True, "total_cpu": 3},
        {"environment": {"secrets": {"TOKEN": "${secret:T}"}}, "volume": {"mount_path": "/data", "size": "1GiB"}},
        {"visibility": "restricted", "allowed_users": ["bo"], "synchronous": {"min_scale": 1}, "cpu": 0.5},
    ],
)
def test_what_oscar_4_shows_of_a_service_is_no_difference(
    defined: Any, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("T", "sesame")
    cluster: Any = Recorded()
    cluster.there = as_oscar_4_shows_it(defined(**values).service)
    assert apply(cluster, defined(**values)).did == "left as it is"
    done = apply(cluster, defined(**values, log_level="DEBUG"))
    assert (done.did, done.changed) == ("updated", ("log_level",))


def test_a_list_of_buckets_that_the_cluster_makes_anew_is_not_sent_twice(defined: Any) -> None:
    there = {"bucket_list": ["fish-ana"], "labels": {"vo": "vo.example.org"}}
    users = {"visibility": "restricted", "allowed_users": ["ana"], "isolation_level": "USER"}
    assert "bucket_list" not in replacement(defined(**BOTH, **users), there)
    sent = replacement(defined(**BOTH), there)
    assert sent["bucket_list"] == ["fish-ana"]
    assert sent["labels"]["vo"] == "vo.example.org"
