"""The platform's own client: it takes our FDL files, and works with the stand-in."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from ai4sdk.backends.oscar.client import STAND_IN, Cluster
from ai4sdk.backends.oscar.standin.server import read_access

oscar_python = pytest.importorskip("oscar_python.client")
BOTH: dict[str, Any] = {"input": [{"path": "fish/in"}], "output": [{"path": "fish/out"}]}


@pytest.fixture
def client(stand_in: Cluster, tmp_path: Path) -> Any:
    access = read_access(tmp_path / STAND_IN)
    assert access is not None
    return oscar_python.Client(
        {
            "cluster_id": "oscar-cluster",
            "endpoint": access["endpoint"],
            "user": access["username"],
            "password": access["password"],
            "ssl": False,
        }
    )


@pytest.fixture
def fdl(tmp_path: Path, defined: Any) -> Path:
    """Return an FDL file with its script beside it."""
    definition = defined(**BOTH)
    folder = tmp_path / "fdl"
    folder.mkdir()
    (folder / "script.sh").write_text(definition.script)
    (folder / "fdl.yaml").write_text(definition.to_fdl())
    return folder / "fdl.yaml"


def test_it_creates_calls_updates_and_removes_a_service(
    client: Any, fdl: Path, stand_in: Cluster, ended: Any, tmp_path: Path
) -> None:
    assert client.health_check().text == "Ok"
    assert client.get_cluster_info().json()["version"].startswith("a stand-in")
    assert client.create_service(str(fdl)).status_code == 201
    with pytest.raises(ValueError, match="already present"):
        client.create_service(str(fdl))
    assert [service["name"] for service in client.list_services().json()] == ["pond"]
    service = client.get_service("pond").json()
    assert service["script"] == (fdl.parent / "script.sh").read_text()

    row = tmp_path / "row.json"
    row.write_text('{"x": 1}')
    answer = client.run_service("pond", input=str(row), output=str(tmp_path / "answer.json"))
    assert json.loads(base64.b64decode(answer.text)) == {"of": {"x": 1}}
    assert json.loads((tmp_path / "answer.json").read_text()) == {"of": {"x": 1}}

    assert client.run_service("pond", input=str(row), async_call=True).status_code == 201
    ended(stand_in, "pond", 1)
    ((name, job),) = client.list_jobs("pond").json()["jobs"].items()
    assert job["status"] == "Succeeded"
    assert client.get_job_logs("pond", name).status_code == 200

    assert client.get_deployment_status("pond").json()["state"] == "unavailable"
    assert client.remove_job("pond", name).status_code == 204
    assert client.remove_all_jobs("pond").status_code == 204
    fdl.write_text(fdl.read_text().replace('"2Gi"', '"3Gi"'))
    assert client.update_service("pond", str(fdl)).status_code == 204
    now = client.get_service("pond").json()
    assert (now["memory"], now["token"]) == ("3Gi", service["token"])
    assert client.remove_service("pond").status_code == 204
    assert client.list_services().json() == []


def test_it_is_told_of_a_failed_prediction(client: Any, fdl: Path, stand_in: Cluster, ended: Any) -> None:
    requests = pytest.importorskip("requests")
    client.create_service(str(fdl))
    with pytest.raises(requests.HTTPError, match="500"):
        client.run_service("pond", input="raises")
    client.run_service("pond", input="raises", async_call=True)
    ended(stand_in, "pond", 1)
    assert [job["status"] for job in client.list_jobs("pond").json()["jobs"].values()] == ["Failed"]


def test_it_takes_the_service_of_the_api_as_well(client: Any, defined: Any) -> None:
    assert client.create_service(defined("lake").service).status_code == 201
    assert [service["name"] for service in client.list_services().json()] == ["lake"]


def test_it_reads_where_buckets_are(client: Any, defined: Any, fdl: Path) -> None:
    client.create_service(str(fdl))
    storage = client.create_storage_client("pond")
    assert storage.storage_providers["minio"]["default"]["endpoint"].startswith("file:///")
    assert [bucket["bucket_name"] for bucket in client.list_buckets().json()] == ["fish"]
