"""Pods keep to the *restricted* Pod Security Standard unless told otherwise; its rules are stated here, one a function.

They are those of https://kubernetes.io/docs/concepts/security/pod-security-standards/ for pods on Linux.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import ai4sdk
from ai4sdk.backends.kubernetes.manifests import manifests
from ai4sdk.errors import ConfigError
from ai4sdk.runs.layout import RunPaths

GOLDEN = Path(__file__).parent / "golden"
Pod = dict[str, Any]


def containers(pod: Pod) -> list[dict[str, Any]]:
    return [*pod["containers"], *pod.get("initContainers", []), *pod.get("ephemeralContainers", [])]


def contexts(pod: Pod) -> Iterator[dict[str, Any]]:
    """Yield the security context of the pod, and that of each container."""
    yield pod.get("securityContext", {})
    yield from (one.get("securityContext", {}) for one in containers(pod))


def effective(pod: Pod, name: str) -> list[Any]:
    """Return what holds for each container: its own value, or else the pod's."""
    general = pod.get("securityContext", {}).get(name)
    return [one.get("securityContext", {}).get(name, general) for one in containers(pod)]


def shares_nothing_with_its_node(pod: Pod) -> bool:
    return not any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC"))


def is_not_privileged(pod: Pod) -> bool:
    return not any(context.get("privileged") for context in contexts(pod))


def has_no_ports_of_its_node(pod: Pod) -> bool:
    return not any(port.get("hostPort") for one in containers(pod) for port in one.get("ports", []))


def probes_no_other_hosts(pod: Pod) -> bool:
    probes = [
        one.get(name, {}) for one in containers(pod) for name in ("livenessProbe", "readinessProbe", "startupProbe")
    ]
    probes += [hook for one in containers(pod) for hook in one.get("lifecycle", {}).values()]
    return not any(probe.get(kind, {}).get("host") for probe in probes for kind in ("httpGet", "tcpSocket"))


def keeps_apparmor(pod: Pod) -> bool:
    profiles = [context.get("appArmorProfile", {"type": "RuntimeDefault"}) for context in contexts(pod)]
    return all(profile["type"] in ("RuntimeDefault", "Localhost") for profile in profiles)


def keeps_selinux(pod: Pod) -> bool:
    kinds = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
    options = [context.get("seLinuxOptions", {}) for context in contexts(pod)]
    return all(one.get("type", "") in kinds and not one.get("user") and not one.get("role") for one in options)


def keeps_proc_masked(pod: Pod) -> bool:
    return all(context.get("procMount", "Default") == "Default" for context in contexts(pod))


def sets_safe_sysctls_only(pod: Pod) -> bool:
    safe = {
        "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
    }  # fmt: skip
    return {one["name"] for one in pod.get("securityContext", {}).get("sysctls", [])} <= safe


def has_volumes_of_allowed_kinds(pod: Pod) -> bool:
    kinds = {
        "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"
    }  # fmt: skip
    return all(len(volume.keys() & kinds) == 1 and len(volume) == 2 for volume in pod.get("volumes", []))


def cannot_gain_privileges(pod: Pod) -> bool:
    return all(one.get("securityContext", {}).get("allowPrivilegeEscalation") is False for one in containers(pod))


def runs_as_no_root(pod: Pod) -> bool:
    return all(effective(pod, "runAsNonRoot")) and not any(context.get("runAsUser") == 0 for context in contexts(pod))


def has_a_seccomp_profile(pod: Pod) -> bool:
    given = [(profile or {}).get("type") for profile in effective(pod, "seccompProfile")]
    return all(kind in ("RuntimeDefault", "Localhost") for kind in given)


def drops_all_capabilities(pod: Pod) -> bool:
    given = [one.get("securityContext", {}).get("capabilities", {}) for one in containers(pod)]
    return all("ALL" in one.get("drop", []) and set(one.get("add", [])) <= {"NET_BIND_SERVICE"} for one in given)


RESTRICTED: tuple[Callable[[Pod], bool], ...] = (
    shares_nothing_with_its_node,
    is_not_privileged,
    has_no_ports_of_its_node,
    probes_no_other_hosts,
    keeps_apparmor,
    keeps_selinux,
    keeps_proc_masked,
    sets_safe_sysctls_only,
    has_volumes_of_allowed_kinds,
    cannot_gain_privileges,
    runs_as_no_root,
    has_a_seccomp_profile,
    drops_all_capabilities,
)


def broken(pod: Pod) -> list[str]:
    return [rule.__name__ for rule in RESTRICTED if not rule(pod)]


def pod(options: str = "") -> Pod:
    backend = {"kind": "kubernetes", "image": "pond:1", "claim": "pond", **yaml.safe_load(f"{{{options}}}")}
    Path("configs/cluster.yaml").write_text(json.dumps({"defaults": ["train", "_self_"], "backend": backend}))
    *_, job = manifests(ai4sdk.plan("cluster"), RunPaths(Path("/home/ana/pond/runs/one")), Path("/home/ana/pond"))
    found: Pod = job["spec"]["template"]["spec"]
    return found


def pod_in(job: dict[str, Any]) -> Pod:
    """Return what the pods of a Job are or, of a TrainJob, what it makes of those of a runtime that says nothing."""
    if job["kind"] == "Job":
        return dict(job["spec"]["template"]["spec"])
    (patch,) = job["spec"]["runtimePatches"]
    (part,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    return dict(part["template"]["spec"]["template"]["spec"])


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.yaml")), ids=lambda file: file.stem)
def test_pods_keep_to_the_restricted_standard(file: Path) -> None:
    *_, job = yaml.safe_load_all(file.read_text())
    assert broken(pod_in(job)) == []


def test_with_another_user_or_the_images_own_they_still_do(project: Any) -> None:
    assert broken(pod("user: 4711")) == []
    images_own = pod("user: null")
    assert broken(images_own) == []
    assert not {"runAsUser", "fsGroup"} & images_own["securityContext"].keys()


def test_what_the_cluster_is_to_decide_is_not_said(project: Any) -> None:
    found = pod("security: none")
    assert list(contexts(found)) == [{}, {}]
    assert "HOME" not in [entry["name"] for entry in found["containers"][0]["env"]]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda pod: pod.update(hostNetwork=True), "shares_nothing_with_its_node"),
        (lambda pod: pod["volumes"].append({"name": "x", "hostPath": {"path": "/"}}), "has_volumes_of_allowed_kinds"),
        (lambda pod: pod["securityContext"].update(runAsUser=0), "runs_as_no_root"),
        (lambda pod: pod["securityContext"].pop("runAsNonRoot"), "runs_as_no_root"),
        (lambda pod: pod["securityContext"].pop("seccompProfile"), "has_a_seccomp_profile"),
        (lambda pod: pod["containers"][0].pop("securityContext"), "drops_all_capabilities"),
        (lambda pod: pod["containers"][0]["securityContext"].update(privileged=True), "is_not_privileged"),
        (lambda pod: pod["containers"][0].update(ports=[{"hostPort": 80}]), "has_no_ports_of_its_node"),
    ],
)
def test_the_rules_see_what_breaks_them(project: Any, change: Callable[[Pod], object], rule: str) -> None:
    other = copy.deepcopy(pod())
    change(other)
    assert rule in broken(other)


def test_a_folder_of_the_node_is_seen_only_if_it_was_named(project: Any) -> None:
    volume = "volumes: [{host_path: /scratch/ana, path: /scratch}]"
    with pytest.raises(ConfigError, match=r"unless host_paths: \[/scratch/ana\] says so"):
        pod(volume)
    found = pod(f"{volume}, host_paths: [/scratch]")
    assert found["volumes"][-1]["hostPath"] == {"path": "/scratch/ana", "type": "Directory"}
    assert broken(found) == ["has_volumes_of_allowed_kinds"], "clusters that enforce the standard refuse it"


def test_data_is_read_only_unless_said_otherwise(project: Any) -> None:
    volumes = "[{claim: catches, path: /data, sub_path: 2026/may}, {claim: scratch, path: /scratch, read_only: false}]"
    found = pod(f"volumes: {volumes}, shared_memory: 2GiB")
    *_, data, scratch = found["containers"][0]["volumeMounts"]
    assert data == {"name": "volume-0", "mountPath": "/data", "readOnly": True, "subPath": "2026/may"}
    assert scratch["readOnly"] is False
    assert found["volumes"][2]["emptyDir"] == {"medium": "Memory", "sizeLimit": str(2 * 2**30)}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("volumes: [{path: /data}]", "a volume is of a claim or of a host_path"),
        ("volumes: [{claim: a, host_path: /a, path: /data}]", "a volume is of a claim or of a host_path"),
        ("volumes: [{claim: a, path: /workspace}]", "something else is at /workspace"),
        ("volumes: [{claim: a, path: /data}, {claim: b, path: /data}]", "something else is at /data"),
        ("volumes: [{claim: a, path: /data, sub_path: ../b}]", "is no folder of a volume"),
        ("volumes: [{host_path: /scratchy, path: /data}], host_paths: [/scratch]", "may not see /scratchy"),
        ("user: 0", "user"),
        ("env: {A: x}, config_maps: {A: b/c}", "A is set twice"),
        ("config_maps: {A: b}", "write CONFIGMAP/KEY"),
    ],
)
def test_what_cannot_be_is_a_mistake_of_the_config(project: Any, option: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pod(option)
    assert message in str(caught.value)
    assert "configs/cluster.yaml" in str(caught.value)
