"""A container image for a model package: what a builder is given. The Containerfile is made by a pure function."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ai4sdk.backends.oscar.script import serve_command
from ai4sdk.errors import EnvironmentFault, UsageError
from ai4sdk.runs.files import read_json
from ai4sdk.spec.oscar import Expose, OscarBackend

__all__ = ["Installed", "containerfile", "installed", "require_new", "write_context"]

_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
"""Where PyTorch's wheels without CUDA are; their versions end in ``+cpu``."""

_CONTAINERFILE = string.Template("""\
# A model package of ai4sdk, ready to predict and to serve. Written by `ai4sdk oscar image`.
FROM $base AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY $files ./
# What answers is installed, and no more: ai4sdk without what trains, and all that the model's own code needs.
RUN python -m venv --without-pip /opt/venv && \\
    python -m pip --python /opt/venv install --no-compile --prefer-binary $index\\
        --constraint constraints.txt --requirement requirements.txt && \\
    python -m pip --python /opt/venv install --no-compile --no-deps $ai4sdk
# Tests and headers answer nothing. Bytecode is made by content, as pip makes it by time, and no two builds would be
# alike; what no Python 3 reads, stays.
RUN find /opt/venv/lib -depth -type d \\( -name tests -o -name test -o -path '*/torch/include' \\) \\
        -exec rm -rf {} + && \\
    find /opt/venv/lib -path '*/torch/bin/*' ! -name torch_shm_manager -delete && \\
    { python -m compileall -qq -f -j 0 --invalidation-mode unchecked-hash /opt/venv/lib || true; }

# What changes most comes last: a new model is one layer.
FROM $base
COPY --from=packages /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$$PATH HOME=/tmp LOGNAME=ai4sdk PYTHONUNBUFFERED=1
COPY package $package
USER $user:$user
WORKDIR /tmp
EXPOSE $port
CMD [$command]
""")
_USER = 1000
ROOT = "ai4sdk"
_NOT_FOR_ANSWERS = ("mlflow", "optuna", "cmaes", "pandas", "pyarrow", "scikit-learn", "matplotlib")
"""What ai4sdk needs to train, to study and to report, and not to serve. Packages whose code needs it have it."""
_BUILT_TWICE = ("torch", "torchvision", "torchaudio")
_FOR_DRIFT = "scipy"
"""What watching for drift needs; it would come with scikit-learn."""


@dataclass(frozen=True)
class Installed:
    """What is installed here that serving a model package needs.

    Parameters
    ----------
    version
        Version of ai4sdk.
    wanted
        Packages to ask for, and their versions, such as ``numpy==2.4.6``.
    constraints
        The same of all that these need.
    """

    version: str
    wanted: tuple[str, ...]
    constraints: tuple[str, ...]


def installed(packages: Mapping[str, str] = MappingProxyType({}), *, gpu: bool = False) -> Installed:
    """Look at what is installed here: what ai4sdk needs to serve, and what a model package needs besides.

    Parameters
    ----------
    packages
        Those that the model package was made with, and their versions, which are asked for.
    gpu
        Whether PyTorch is the one with CUDA, whatever is installed here.
    """
    given = {_plain(name): version for name, version in packages.items()}
    roots = _needed(importlib.metadata.distribution(ROOT).requires or ())
    asked = {_FOR_DRIFT, *(name for name, _ in roots)}.difference(_NOT_FOR_ANSWERS).union(given) - {ROOT}
    found: dict[str, str] = {}
    waiting = [root for root in roots if root[0] in asked] + [(name, frozenset()) for name in asked]
    seen = set(waiting)
    while waiting:
        name, extras = waiting.pop()
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform
        found[name] = distribution.version
        further = set(_needed(distribution.requires or (), extras)) - seen
        seen |= further
        waiting += further
    found |= {name: version for name, version in given.items() if name != ROOT}
    lines = {name: f"{name}=={_built(name, version, gpu)}" for name, version in sorted(found.items())}
    wanted = tuple(line for name, line in lines.items() if name in asked)
    return Installed(given.get(ROOT, importlib.metadata.version(ROOT)), wanted, tuple(lines.values()))


def containerfile(options: OscarBackend, have: Installed, *, base: str, wheel: str = "", trusted: bool = False) -> str:
    """Return the Containerfile.

    Parameters
    ----------
    options
        The description: where the package is in the image, port, GPU.
    have
        Versions to install.
    base
        Image to begin with, which has the Python that the package was made with.
    wheel
        File name of a wheel of ai4sdk in the context; without one it comes from the package index.
    trusted
        Whether code inside the package is run.
    """
    port = (options.expose or Expose()).api_port
    command = serve_command(options.package, port, trusted=trusted, gpu=options.enable_gpu)
    return _CONTAINERFILE.substitute(
        base=base,
        index="" if options.enable_gpu else f"--extra-index-url {_CPU_INDEX} ",
        files=" ".join(["constraints.txt", "requirements.txt", *([wheel] if wheel else [])]),
        ai4sdk=f"./{wheel}" if wheel else f"{ROOT}=={have.version}",
        package=options.package,
        user=_USER,
        port=port,
        command=", ".join(f'"{word}"' for word in command),
    )


def require_new(folder: Path) -> None:
    """Refuse a folder that has something in it.

    Raises
    ------
    UsageError
        If it has.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder} has something in it", hint="--out NEW-FOLDER")


def write_context(
    folder: Path, package: Path, options: OscarBackend, *, base: str, wheel: Path | None, trusted: bool
) -> list[Path]:
    """Write what a builder needs into a new folder: Containerfile, constraints, the package, and a wheel.

    Raises
    ------
    UsageError
        If the folder has something in it.
    EnvironmentFault
        If it cannot be written.
    """
    have = installed(_packages(package), gpu=options.enable_gpu)
    text = containerfile(options, have, base=base, wheel=wheel.name if wheel else "", trusted=trusted)
    try:
        require_new(folder)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(package, folder / "package", copy_function=shutil.copyfile)
        for path in (folder / "package").rglob("*"):  # whoever made the package, everybody in the container reads it
            path.chmod(0o755 if path.is_dir() else 0o644)
        (folder / "package").chmod(0o755)
        if wheel is not None:
            shutil.copyfile(wheel, folder / wheel.name)
        for name, lines in (("constraints.txt", have.constraints), ("requirements.txt", have.wanted)):
            (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        (folder / "Containerfile").write_text(text, encoding="utf-8")
    except (OSError, shutil.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise EnvironmentFault(f"{folder} cannot be written: {why}", hint="--out FOLDER") from error
    return sorted(folder.iterdir())


def _built(name: str, version: str, gpu: bool) -> str:
    """Return the version of a package as the index has it: of PyTorch's there are builds without CUDA."""
    if name not in _BUILT_TWICE:
        return version
    return version.partition("+")[0] + ("" if gpu else "+cpu")


def _packages(package: Path) -> dict[str, str]:
    """Return the packages that a model package was made with, and their versions."""
    found = read_json(package / "model.json").get("packages") or {}
    return {str(name): str(version) for name, version in found.items()}


def _needed(requirements: Iterable[str], extras: frozenset[str] = frozenset()) -> list[tuple[str, frozenset[str]]]:
    """Return the names of what is needed with some extras, and the extras of these, such as ``fsspec[http]``'s."""
    needed = []
    for text in requirements:
        requirement, _, marker = text.partition(";")
        asked = {_plain(name) for name in re.findall(r"extra\s*==\s*[\"']([^\"']+)", marker)}
        if not asked or asked & extras:
            name, listed = re.fullmatch(r"([\w.-]+)\s*(?:\[([^\]]*)\])?.*", requirement.strip()).groups()  # type: ignore[union-attr]
            of_its_own = frozenset(_plain(each.strip()) for each in (listed or "").split(",") if each.strip())
            needed.append((_plain(name), of_its_own))
    return needed


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
