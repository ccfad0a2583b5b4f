"""Creating and changing services: nothing is sent in vain, nothing that the cluster added is lost."""

from __future__ import annotations

from typing import Any

import pytest

from ai4sdk.backends.oscar.apply import apply, differences, replacement
from ai4sdk.backends.oscar.client import Cluster
from ai4sdk.errors import UsageError

BOTH: dict[str, Any] = {"input": [{"path": "fish/in"}], "output": [{"path": "fish/out"}]}


class Recorded:
    """A cluster of one service, which gives it a new token at each update, as OSCAR did before version 4."""

    def __init__(self, *, forgetful: bool = False) -> None:
        self.there: dict[str, Any] | None = None
        self.did: list[str] = []
        self.forgetful = forgetful

    def service(self, name: str) -> dict[str, Any] | None:
        return self.there

    def create(self, service: dict[str, Any]) -> None:
        self.did.append("create")
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
    assert apply(cluster, defined(**BOTH, cpu=2), recreate=True).did == "recreated"
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
