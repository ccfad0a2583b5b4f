"""What is promised of a code snapshot: all that a job imports, the same anywhere, and back to exactly one folder."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import stat
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ai4sdk.errors import DataError, UsageError
from ai4sdk.planning.code import CodeFile, CodeSnapshot, take_snapshot, unpack


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def paths(snapshot: CodeSnapshot) -> list[str]:
    return [file.path for file in snapshot.files]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pack(files: dict[str, bytes], **changes: object) -> CodeSnapshot:
    """Make a snapshot by hand, as a hostile plan could hold it."""
    listed = tuple(CodeFile(path, hashlib.sha256(data).hexdigest(), len(data)) for path, data in files.items())
    snapshot = CodeSnapshot(listed, base64.b64encode(zlib.compress(b"".join(files.values()))).decode())
    return replace(snapshot, **changes)  # type: ignore[arg-type]


PROJECT: dict[str, str | bytes] = {
    "net/__init__.py": "from .layers import Layer\n",
    "net/layers.py": "import torch\nimport json\nimport shared.maths\nclass Layer: ...\n",
    "net/labels.txt": "a\r\nb\r\n",
    "net/tests/test_layers.py": "import pytest\n",
    "shared/maths.py": "def f():\n    import numpy as np\n    import late\n",
    "late.py": "import importlib\nimportlib.import_module('named.inside')\nimportlib.import_module(unknown)\n",
    "named/__init__.py": "",
    "named/inside.py": "from sklearn.base import clone\n",
    "unrelated.py": "import pandas\n",
    "data/rows.csv": "1,2\n",
    "README.md": "",
}
PROJECT_CODE = [
    "late.py",
    "named/__init__.py",
    "named/inside.py",
    "net/__init__.py",
    "net/labels.txt",
    "net/layers.py",
    "net/tests/test_layers.py",
    "shared/maths.py",
]


class TestWhatIsTaken:
    def test_targets_what_they_import_and_nothing_else(self, tmp_path: Path) -> None:
        write(tmp_path, PROJECT)
        snapshot = take_snapshot(["net.Layer", "torch.optim.SGD"], [tmp_path])
        assert paths(snapshot) == PROJECT_CODE
        assert snapshot.external == ("numpy", "pytest", "sklearn", "torch")

    def test_a_single_module(self, tmp_path: Path) -> None:
        write(tmp_path, {"own.py": "class Net: ...", "own.txt": "", "other.py": ""})
        assert paths(take_snapshot(["own.Net"], [tmp_path])) == ["own.py"]

    def test_only_installed_targets(self, tmp_path: Path) -> None:
        snapshot = take_snapshot(["torch.nn.Linear", "builtins.dict"], [tmp_path])
        assert snapshot.files == ()
        assert snapshot.external == ("torch",)
        unpack(snapshot, tmp_path / "out")
        assert contents(tmp_path / "out") == {}

    def test_the_first_folder_wins(self, tmp_path: Path) -> None:
        first = write(tmp_path / "a", {"own/__init__.py": "first"})
        second = write(tmp_path / "b", {"own/__init__.py": "second", "own/more.py": ""})
        unpack(take_snapshot(["own.Net"], [first, second]), tmp_path / "out")
        assert contents(tmp_path / "out") == {"own/__init__.py": b"first"}

    def test_a_package_without_init_over_two_folders(self, tmp_path: Path) -> None:
        first = write(tmp_path / "a", {"own/one.py": "1", "own/both.py": "first"})
        second = write(tmp_path / "b", {"own/two.py": "2", "own/both.py": "second"})
        unpack(take_snapshot(["own.one.Net"], [first, second]), tmp_path / "out")
        expected = {"own/one.py": b"1", "own/two.py": b"2", "own/both.py": b"first"}
        assert contents(tmp_path / "out") == expected

    def test_a_folder_of_data_that_is_named_like_an_installed_package(self, tmp_path: Path) -> None:
        write(tmp_path, {"own.py": "import torch", "torch/weights.bin": "x"})
        snapshot = take_snapshot(["own.Net"], [tmp_path])
        assert paths(snapshot) == ["own.py"]
        assert snapshot.external == ("torch",)

    def test_the_engine_is_never_the_users_code(self, tmp_path: Path) -> None:
        write(tmp_path, {"own.py": "import ai4sdk", "ai4sdk/__init__.py": ""})
        assert paths(take_snapshot(["own.Net"], [tmp_path])) == ["own.py"]

    def test_what_is_left_out(self, tmp_path: Path) -> None:
        write(
            tmp_path / "own",
            {
                "__init__.py": "",
                "__pycache__/x.cpython-311.pyc": "",
                "old.pyc": "",
                ".env": "PASSWORD=1",
                ".git/config": "",
                "runs/20261122-own/plan.json": "",
                "mlruns/0/meta.yaml": "",
                "deep/__pycache__/y.pyc": "",
                "deep/runs/__init__.py": "",
                "deep/runs/layout.py": "",
                "deep/data.bin": b"\0\xff",
            },
        )
        kept = ["own/__init__.py", "own/deep/data.bin", "own/deep/runs/__init__.py", "own/deep/runs/layout.py"]
        assert paths(take_snapshot(["own.Net"], [tmp_path])) == kept

    def test_a_module_that_is_no_python_is_kept_as_it_is(self, tmp_path: Path) -> None:
        write(tmp_path, {"own/__init__.py": "import helper", "own/template.py": "{{ oops", "own/nul.py": b"\0"})
        write(tmp_path, {"helper.py": ""})
        assert "helper.py" in paths(take_snapshot(["own.Net"], [tmp_path]))


class TestWhatIsRefused:
    def test_too_much_names_the_five_largest(self, tmp_path: Path) -> None:
        write(tmp_path / "own", {f"part{number}.bin": bytes(1000 * number) for number in range(1, 8)})
        with pytest.raises(UsageError) as caught:
            take_snapshot(["own.Net"], [tmp_path], limit=20_000)
        named = [number for number in range(1, 8) if f"own/part{number}.bin" in caught.value.message]
        assert named == [3, 4, 5, 6, 7]
        assert "dataset" in (caught.value.hint or "")
        assert take_snapshot(["own.Net"], [tmp_path], limit=28_000)

    def test_links_within_the_project_are_followed(self, tmp_path: Path) -> None:
        write(tmp_path, {"own/__init__.py": "", "shared/table.csv": "1", "shared/deep/x.txt": "2"})
        (tmp_path / "own" / "table.csv").symlink_to("../shared/table.csv")
        (tmp_path / "own" / "deep").symlink_to(tmp_path / "shared" / "deep")
        unpack(take_snapshot(["own.Net"], [tmp_path]), tmp_path / "out")
        assert contents(tmp_path / "out") == {"own/__init__.py": b"", "own/table.csv": b"1", "own/deep/x.txt": b"2"}

    @pytest.mark.parametrize("place", ["own/secret", "own"])
    def test_links_out_of_the_project_are_refused(self, place: str, tmp_path: Path) -> None:
        project = write(tmp_path / "project", {"keep/x": ""} if place == "own" else {"own/__init__.py": ""})
        outside = write(tmp_path / "project-too", {"__init__.py": "secret"})
        (project / place).symlink_to(outside)
        with pytest.raises(UsageError, match="is a link to"):
            take_snapshot(["own.Net"], [project])

    def test_dangling_and_circular_links_are_refused(self, tmp_path: Path) -> None:
        write(tmp_path, {"own/deep/__init__.py": ""})
        link = tmp_path / "own" / "deep" / "again"
        link.symlink_to("..")
        with pytest.raises(UsageError, match="links back"):
            take_snapshot(["own.Net"], [tmp_path])
        link.unlink()
        link.symlink_to("nothing")
        with pytest.raises(UsageError, match="does not exist"):
            take_snapshot(["own.Net"], [tmp_path])
        link.unlink()
        link.symlink_to("again")
        with pytest.raises(UsageError):
            take_snapshot(["own.Net"], [tmp_path])

    def test_pipes_and_sockets_are_passed_over(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, {"own/__init__.py": ""})
        os.mkfifo(tmp_path / "own" / "pipe.py")
        monkeypatch.chdir(tmp_path / "own")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket")
            assert paths(take_snapshot(["own.Net"], [tmp_path])) == ["own/__init__.py"]

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
    @pytest.mark.parametrize("name", ["own/x.py", "own/deep"])
    def test_what_cannot_be_read_is_named(self, name: str, tmp_path: Path) -> None:
        write(tmp_path, {"own/x.py": "", "own/deep/y.py": ""})
        (tmp_path / name).chmod(0)
        try:
            with pytest.raises(UsageError, match=name):
                take_snapshot(["own.Net"], [tmp_path])
        finally:
            (tmp_path / name).chmod(0o755)

    def test_a_name_that_is_no_text(self, tmp_path: Path) -> None:
        write(tmp_path, {"own/__init__.py": ""})
        try:
            Path(os.fsdecode(os.fsencode(tmp_path / "own") + b"/\xff.py")).touch()
        except OSError:
            pytest.skip("this file system takes only UTF-8")
        with pytest.raises(UsageError, match="UTF-8"):
            take_snapshot(["own.Net"], [tmp_path])


class TestSameness:
    def test_the_same_tree_elsewhere_gives_the_same_bytes(self, tmp_path: Path) -> None:
        here = write(tmp_path / "here", PROJECT)
        there = write(tmp_path / "far" / "away", dict(reversed(PROJECT.items())))
        for path in there.rglob("*"):
            os.utime(path, (1, 1))
        one, other = (take_snapshot(["net.Layer"], [folder]) for folder in (here, there))
        assert json.dumps(one.to_json()) == json.dumps(other.to_json())
        assert one.digest == other.digest
        assert str(tmp_path) not in json.dumps(one.to_json())

    def test_unrelated_files_change_nothing(self, tmp_path: Path) -> None:
        before = take_snapshot(["net.Layer"], [write(tmp_path, PROJECT)])
        write(tmp_path, {"unrelated.py": "changed", "data/rows.csv": "9", "new.py": "", "net/__pycache__/a.pyc": "x"})
        assert take_snapshot(["net.Layer"], [tmp_path]) == before

    @pytest.mark.parametrize(
        "change", [{"net/labels.txt": "a\nb\n"}, {"net/new.txt": ""}, {"shared/maths.py": "def g(): ..."}]
    )
    def test_every_change_of_the_code_changes_the_digest(self, change: dict[str, str | bytes], tmp_path: Path) -> None:
        before = take_snapshot(["net.Layer"], [write(tmp_path, PROJECT)]).digest
        assert take_snapshot(["net.Layer"], [write(tmp_path, change)]).digest != before

    def test_a_file_of_another_name_is_another_digest(self) -> None:
        assert pack({"a": b"1"}).digest != pack({"b": b"1"}).digest
        assert pack({"a": b"1", "b": b""}).digest != pack({"a": b"", "b": b"1"}).digest

    def test_the_digest_is_of_paths_and_contents_alone(self) -> None:
        snapshot = pack({"a": b"1", "b": b"2"})
        other = replace(snapshot, external=("torch",), files=tuple(reversed(snapshot.files)), archive="")
        executable = replace(snapshot, files=tuple(replace(file, executable=True) for file in snapshot.files))
        assert snapshot.digest == other.digest == executable.digest


class TestUnpacking:
    def test_later_edits_change_nothing(self, tmp_path: Path) -> None:
        project = write(tmp_path / "project", PROJECT)
        snapshot = take_snapshot(["net.Layer"], [project])
        write(project, dict.fromkeys(PROJECT, "edited"))
        unpack(snapshot, tmp_path / "out")
        assert contents(tmp_path / "out") == {path: str(PROJECT[path]).encode() for path in PROJECT_CODE}

    def test_executables_stay_executable(self, tmp_path: Path) -> None:
        project = write(tmp_path / "project", {"own/__init__.py": "", "own/tool.sh": "#!/bin/sh\n"})
        (project / "own" / "tool.sh").chmod(0o755)
        snapshot = take_snapshot(["own.Net"], [project])
        unpack(snapshot, tmp_path / "out")
        (tmp_path / "out" / "own" / "tool.sh").chmod(0o644)
        unpack(snapshot, tmp_path / "out")
        modes = {path.name: path.stat().st_mode & stat.S_IXUSR for path in (tmp_path / "out" / "own").iterdir()}
        assert modes == {"__init__.py": 0, "tool.sh": stat.S_IXUSR}

    def test_a_second_call_completes_what_a_kill_left(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        files = {f"own/part{number}.py": b"x" * number for number in range(6)}
        snapshot = pack(files)
        for survived in range(6):
            out = tmp_path / f"out{survived}"
            done = iter(range(survived))
            real = Path.replace

            def dying(self: Path, target: Path, done: object = done, real: object = real) -> Path:
                if next(done, None) is None:  # type: ignore[call-overload]
                    raise KeyboardInterrupt
                return real(self, target)  # type: ignore[operator, no-any-return]

            with monkeypatch.context() as patch:
                patch.setattr(Path, "replace", dying)
                with pytest.raises(KeyboardInterrupt):
                    unpack(snapshot, out)
            assert len(contents(out)) == survived
            unpack(snapshot, out)
            assert contents(out) == files

    def test_edited_and_cut_files_are_put_back_and_others_left(self, tmp_path: Path) -> None:
        snapshot = pack({"own/a.py": b"aaa", "own/b.py": b"bbb", "c.py": b"ccc"})
        unpack(snapshot, tmp_path)
        write(tmp_path, {"own/a.py": "a", "own/b.py": "BBB", "own/notes.txt": "mine"})
        untouched = (tmp_path / "c.py").stat().st_ino
        unpack(snapshot, tmp_path)
        expected = {"own/a.py": b"aaa", "own/b.py": b"bbb", "c.py": b"ccc", "own/notes.txt": b"mine"}
        assert contents(tmp_path) == expected
        assert (tmp_path / "c.py").stat().st_ino == untouched

    @pytest.mark.parametrize(
        "path",
        ["/etc/cron.d/x", "../x", "a/../../x", "a/..", "..", ".", "", "a//b", "a/./b", "a/", "x\0y", "x\ud800"],
    )
    def test_paths_that_leave_the_folder_are_refused(self, path: str, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="does not stay in its folder"):
            unpack(pack({"good.py": b"", path: b"x"}), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("files", [{"a": b"", "a/b": b""}, {"a/b/c": b"", "a/b": b"", "a-b": b""}])
    def test_a_file_cannot_be_a_folder_too(self, files: dict[str, bytes], tmp_path: Path) -> None:
        with pytest.raises(DataError, match="both a file and a folder"):
            unpack(pack(files), tmp_path / "out")

    def test_a_path_listed_twice_is_refused(self, tmp_path: Path) -> None:
        snapshot = pack({"a": b"1"})
        twice = replace(snapshot, files=snapshot.files * 2, archive=pack({"a": b"1", "b": b"1"}).archive)
        with pytest.raises(DataError, match="twice"):
            unpack(twice, tmp_path)

    @pytest.mark.parametrize("link", ["own", "own/deep"])
    def test_links_that_lie_in_the_way_are_not_followed(self, link: str, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        place = tmp_path / "out" / link
        place.parent.mkdir(parents=True)
        place.symlink_to(outside)
        with pytest.raises(DataError, match="in the way"):
            unpack(pack({"own/deep/x.py": b"x"}), tmp_path / "out")
        assert contents(outside) == {}

    def test_a_link_where_a_file_belongs_is_replaced(self, tmp_path: Path) -> None:
        victim = write(tmp_path, {"victim": "keep"}) / "victim"
        out = tmp_path / "out"
        out.mkdir()
        (out / "x.py").symlink_to(victim)
        unpack(pack({"x.py": b"new"}), out)
        assert victim.read_text() == "keep"
        assert not (out / "x.py").is_symlink()

    def test_a_folder_where_a_file_belongs_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "x.py" / "deep").mkdir(parents=True)
        with pytest.raises(DataError, match="in the way"):
            unpack(pack({"x.py": b"new"}), tmp_path)

    @pytest.mark.parametrize(
        "archive",
        [
            "",
            "no base64!",
            "é",
            base64.b64encode(b"no zlib").decode(),
            base64.b64encode(zlib.compress(b"abc")[:-3]).decode(),
            base64.b64encode(zlib.compress(b"ab")).decode(),
            base64.b64encode(zlib.compress(b"abcd")).decode(),
            base64.b64encode(zlib.compress(b"abc") + b"more").decode(),
            base64.b64encode(zlib.compress(b"abX")).decode(),
            base64.b64encode(zlib.compress(bytes(50_000_000))).decode(),
        ],
    )
    def test_contents_that_are_not_those_recorded_are_refused(self, archive: str, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="damaged"):
            unpack(pack({"a": b"ab", "b": b"c"}, archive=archive), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("size", [-1, 2**40])
    def test_impossible_sizes_are_refused(self, size: int, tmp_path: Path) -> None:
        snapshot = pack({"a": b"x"})
        with pytest.raises(DataError, match="sizes"):
            unpack(replace(snapshot, files=(replace(snapshot.files[0], size=size),)), tmp_path)

    @pytest.mark.parametrize(
        "value",
        [
            {},
            None,
            [],
            {"files": "x", "external": [], "archive": ""},
            {"files": [{}], "external": [], "archive": ""},
            {"files": [{"path": 1, "sha256": "", "size": 0}], "external": [], "archive": ""},
            {"files": [{"path": "a", "sha256": "", "size": "0"}], "external": [], "archive": ""},
            {"files": [{"path": "a", "sha256": "", "size": True}], "external": [], "archive": ""},
            {"files": [], "external": [1], "archive": ""},
            {"files": [], "external": None, "archive": ""},
            {"files": [], "external": [], "archive": None},
        ],
    )
    def test_what_is_no_snapshot_is_refused(self, value: dict[str, object]) -> None:
        with pytest.raises(DataError, match="damaged"):
            CodeSnapshot.from_json(value)


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12
)
TREES = st.dictionaries(
    st.lists(
        NAMES.filter(lambda name: not name.startswith(".") and len(name.encode()) < 100), min_size=1, max_size=3
    ).map("/".join),
    st.binary(max_size=200),
    max_size=6,
)


def _is_a_tree(files: dict[str, bytes]) -> bool:
    return not any(other.startswith(f"{path}/") for path in files for other in files)


@given(files=TREES.filter(_is_a_tree))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_packed_comes_out_again(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.mktemp("tree")
    write(base / "project" / "own", {"__init__.py": "", **files})
    snapshot = take_snapshot(["own.Net"], [base / "project"])
    again = CodeSnapshot.from_json(json.loads(json.dumps(snapshot.to_json(), ensure_ascii=False)))
    assert again == snapshot
    unpack(again, base / "out")
    unpack(again, base / "out")
    kept = {f"own/{path}": content for path, content in {"__init__.py": b"", **files}.items() if _is_kept(path)}
    assert contents(base / "out") == kept
    assert take_snapshot(["own.Net"], [base / "out"]).digest == snapshot.digest


def _is_kept(path: str) -> bool:
    parts = path.split("/")
    return not path.endswith((".pyc", ".pyo")) and not {"__pycache__", "runs", "mlruns"} & set(parts)
