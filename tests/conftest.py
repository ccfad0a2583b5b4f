"""What tests of every room share."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.request
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ai4sdk.testing.project import write_project

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell has begun the tests with `&`
    signal.signal(signal.SIGINT, signal.default_int_handler)  # or programs that they interrupt would ignore it, too


def _unit(nodeid: str) -> str:
    """Return what of the tests goes to one process as a whole: a file, whose tests share servers; or one guide."""
    return nodeid if nodeid.startswith("tests/docs/") else nodeid.partition("::")[0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put first what takes longest: guides, then files by their slow tests; no process is left with a long one then."""
    tests = Counter(_unit(item.nodeid) for item in items)
    slow = Counter(_unit(item.nodeid) for item in items if item.get_closest_marker("slow"))

    def weight(item: pytest.Item) -> tuple[bool, int, int]:
        unit = _unit(item.nodeid)
        is_guide = unit == item.nodeid and unit in slow
        return is_guide, slow[unit], tests[unit]

    items.sort(key=weight, reverse=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give processes of ``--dist loadfile`` whole files, and guides one by one, in the order above."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Units(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _unit(nodeid)

    config.option.loadscopereorder = False
    return Units(config, log)


_STORES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")


@pytest.fixture(scope="module", autouse=True)
def _as_mlflow_found_it() -> Iterator[None]:
    """Leave the process as it was: MLflow puts its store into the environment, and models' code on the path for good.

    Programs of later tests would inherit the one; to later tests the other would be code that the user has anyway.
    """
    before, path = {name: os.environ.get(name) for name in _STORES}, list(sys.path)
    yield
    sys.path[:] = path
    for name, value in before.items():
        if value is not None:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write files into the test's folder, by relative path, dedented."""

    def write_files(files: dict[str, str], root: Path = tmp_path) -> Path:
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
        return root

    return write_files


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a small user project, entered: a config with layers and a module that plain Lightning could train."""
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def function_project(tmp_path: Path, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project, entered, whose config ``pond.yaml`` calls a function."""
    write(
        {
            ".ai4sdk": "",
            "pond.yaml": """
                defaults: [base, _self_]
                name: pond
                function:
                  _target_: pond.catch
                  boats: 3
                tracking:
                  kind: none
                """,
            "pond.py": """
                def catch(boats, nets=2, table=None):
                    return {"fish": boats * nets}
                """,
        }
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


_SLURM_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
_SLURM_PACKAGES = "apt-get install munge slurmctld slurmd slurm-client slurmdbd mariadb-server"


def _no_slurm_here(*more: str) -> str | None:
    """Say why this machine cannot have a Slurm of its own, if it cannot; ``more`` are further programs it needs."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    lacking = [name for name in (*_SLURM_PROGRAMS, *more) if shutil.which(name, path=path) is None]
    if lacking:
        return f"no {', '.join(lacking)}: {_SLURM_PACKAGES}"
    return None if os.geteuid() == 0 else "Slurm's daemons are started as root here"


@dataclass(frozen=True)
class Cluster:
    """A Slurm of two nodes on this machine, and what tests do to it."""

    folder: Path
    port: int
    accounting: bool = False

    def up(self) -> None:
        """Start what does not run."""
        self._script("up", str(self.port), *(["accounting"] if self.accounting else []))

    @contextmanager
    def taken_down_at_the_end(self) -> Iterator[None]:
        """Take it down and its folder away at the end, even if this process is killed: its end of a pipe closes then."""
        script = 'read -r; "$0" "$1"; rm -rf "$1"'
        argv = ["bash", "-c", script, str(Path(__file__).parent / "slurm" / "down"), str(self.folder)]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, start_new_session=True):  # leaving closes, and waits
            yield

    def kill(self, daemon: str) -> None:
        """Kill a daemon hard: slurmctld, slurmd-n1 or slurmd-n2."""
        os.kill(self._pid(daemon), signal.SIGKILL)

    def stop(self, daemon: str) -> None:
        """Have a daemon write down what it knows and end."""
        pid = self._pid(daemon)
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if "State:\tZ" in Path(f"/proc/{pid}/status").read_text():
                    return
            except OSError:
                return
            time.sleep(0.05)
        raise AssertionError(f"{daemon} does not end")

    def _pid(self, daemon: str) -> int:
        return int((self.folder / "pid" / daemon).read_text())

    @property
    def conf(self) -> str:
        return str(self.folder / "slurm.conf")

    def ask(self, *argv: str) -> str:
        env = {**os.environ, "SLURM_CONF": self.conf}
        return subprocess.run(argv, env=env, capture_output=True, text=True, check=True, timeout=60).stdout

    def node_of(self, job: str) -> str:
        return self.ask("squeue", "--noheader", "--format=%B", "--jobs", job).strip()

    def _script(self, name: str, *argv: str) -> None:
        done = subprocess.run(
            [str(Path(__file__).parent / "slurm" / name), str(self.folder), *argv],
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        assert done.returncode == 0, f"tests/slurm/{name} failed:\n{done.stdout}{done.stderr}"


@contextmanager
def _cluster(*more: str, accounting: bool = False) -> Iterator[Cluster]:
    if reason := _no_slurm_here(*more):
        assert not os.environ.get("CI"), f"CI must have a Slurm: {reason}"
        pytest.skip(reason)
    # Not in pytest's folder, which is root's alone: munge's daemon is another user.
    folder = Path(tempfile.mkdtemp(prefix="ai4sdk-slurm-"))
    port = 20000 + zlib.crc32(str(folder).encode()) % 800 * 10  # sessions side by side each have ports of their own
    cluster = Cluster(folder, port, accounting)
    with cluster.taken_down_at_the_end():
        cluster.up()
        yield cluster


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[Cluster]:
    """Return a real Slurm of two nodes that lives as long as the tests do. In CI it must come up."""
    with _cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def accounting_cluster() -> Iterator[Cluster]:
    """Return one with a database that knows accounts and qualities of service; see tests/slurm/up."""
    with _cluster("slurmdbd", "mariadbd", accounting=True) as cluster:
        yield cluster


@pytest.fixture
def slurm(slurm_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Return the Slurm for one test, with all of its daemons up; commands find it."""
    slurm_cluster.up()
    monkeypatch.setenv("SLURM_CONF", slurm_cluster.conf)
    return slurm_cluster


@pytest.fixture
def accounting(accounting_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Return the Slurm with accounting for one test, with all of its daemons up; commands find it."""
    accounting_cluster.up()
    monkeypatch.setenv("SLURM_CONF", accounting_cluster.conf)
    return accounting_cluster


@dataclass(frozen=True)
class Ray:
    """A Ray of one node on this machine."""

    address: str

    def ask(self, path: str) -> Any:
        """Return what its API answers."""
        with urllib.request.urlopen(f"{self.address}{path}", timeout=60) as answer:
            return json.load(answer)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Ray]:
    """Return a real Ray that lives as long as the tests do. In CI it must come up."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    if shutil.which("ray", path=path) is None:
        assert not os.environ.get("CI"), "CI must have ray"
        pytest.skip("no ray: pip install 'ray[default]'")
    folder = Path(tempfile.mkdtemp(prefix="ai4sdk-ray-"))
    port = 28000 + zlib.crc32(str(folder).encode()) % 400 * 10  # sessions side by side each have ports of their own
    # Its end of a pipe closes when this process ends, or is killed.
    script = '"$0" "$1" "$2" >"$1/up.log" 2>&1 </dev/null & read -r; kill $!; wait; rm -rf "$1"'
    argv = ["bash", "-c", script, str(Path(__file__).parent / "ray" / "up"), str(folder), str(port)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, start_new_session=True, env={**os.environ, "PATH": path}):
        cluster = Ray(f"http://127.0.0.1:{port}")
        deadline = time.monotonic() + 180
        while True:
            try:
                cluster.ask("/api/jobs/")
                break
            except OSError:
                assert time.monotonic() < deadline, (folder / "up.log").read_text()
                time.sleep(0.2)
        yield cluster


@pytest.fixture
def ray(ray_cluster: Ray, monkeypatch: pytest.MonkeyPatch) -> Ray:
    """Return the Ray for one test; commands find it."""
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", ray_cluster.address)
    return ray_cluster


@pytest.fixture
def kubernetes(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a stand-in for a cluster with a volume claim ``pond``; clients find it. See its file for what it is not."""
    for package in ("kubernetes", "kubernetes_validate"):
        pytest.importorskip(package)
    spec = importlib.util.spec_from_file_location(
        "kubernetes_stand_in", Path(__file__).parent / "backends" / "kubernetes" / "stand_in.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("cluster")
    claim = folder / "claim"
    claim.mkdir()
    with module.stand_in(folder, {"pond": claim}) as cluster:
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
        yield cluster


@dataclass(frozen=True)
class Gateway:
    """A Ceph RADOS Gateway on this machine: S3 that sends notifications."""

    endpoint: str
    key: str = "pond"
    secret: str = "pond-secret"


_RGW_PACKAGES = "apt-get install ceph-mon ceph-osd radosgw ceph-common"


@pytest.fixture(scope="session")
def rgw() -> Iterator[Gateway]:
    """Return a real S3 with notifications that lives as long as the tests do. In CI it must come up."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    lacking = [name for name in ("ceph-mon", "ceph-osd", "radosgw", "ceph") if shutil.which(name, path=path) is None]
    if lacking or os.geteuid() != 0:
        reason = f"no {', '.join(lacking)}: {_RGW_PACKAGES}" if lacking else "Ceph's daemons are started as root here"
        assert not os.environ.get("CI"), f"CI must have a RADOS Gateway: {reason}"
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="ai4sdk-rgw-"))
    port = 24000 + zlib.crc32(str(folder).encode()) % 400 * 10  # sessions side by side each have ports of their own
    # Its end of a pipe closes when this process ends, or is killed.
    script = '"$0" "$1" "$2" >"$1/up.log" 2>&1 </dev/null & read -r; kill $!; wait; rm -rf "$1"'
    argv = ["bash", "-c", script, str(Path(__file__).parent / "rgw" / "up"), str(folder), str(port)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, start_new_session=True, env={**os.environ, "PATH": path}):
        deadline = time.monotonic() + 180
        while not (folder / "ready").exists():
            assert time.monotonic() < deadline, (folder / "up.log").read_text()
            time.sleep(0.2)
        yield Gateway(f"http://127.0.0.1:{port}")
