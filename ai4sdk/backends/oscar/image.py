"""A container image for a model package: what a builder is given. The Containerfile is made by a pure function."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import string
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ai4sdk.backends.oscar.script import serve_command
from ai4sdk.errors import EnvironmentFault, UsageError
from ai4sdk.spec.oscar import Expose, OscarBackend

__all__ = ["Installed", "containerfile", "installed", "write_context"]

_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
"""Where PyTorch's wheels without CUDA are; their versions end in ``+cpu``."""

_CONTAINERFILE = string.Template("""\
# A model package of ai4sdk, ready to predict and to serve. Written by `ai4sdk oscar image`.
FROM $base AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY $files ./
# Compiled here, by content, as pip compiles by time, and no two builds would be alike. What no Python 3 reads, stays.
RUN python -m venv --without-pip /opt/venv && \\
    python -m pip --python /opt/venv install --no-compile --prefer-binary $index\\
        --constraint constraints.txt $wanted && \\
    { python -m compileall -qq -j 0 --invalidation-mode unchecked-hash /opt/venv/lib || true; }

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
REQUIREMENTS = "requirements.txt"


@dataclass(frozen=True)
class Installed:
    """What is installed here that serving needs.

    Parameters
    ----------
    version
        Version of ai4sdk.
    constraints
        All packages that it needs, and their versions, such as ``numpy==2.4.6``.
    """

    version: str
    constraints: tuple[str, ...]

    @property
    def cpu_only(self) -> bool:
        """Whether PyTorch is one without CUDA."""
        return any(re.fullmatch(r"torch==\S+\+cpu", one) for one in self.constraints)


def installed(roots: Iterable[str] = (ROOT,)) -> Installed:
    """Look at what is installed here: packages, and all that they need."""
    found: dict[str, str] = {}
    waiting = [ROOT, *roots]
    while waiting:
        name = _plain(waiting.pop())
        if name in found:
            continue
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform
        found[name] = distribution.version
        waiting += _needed(distribution.requires or ())
    version = found.pop(ROOT, "")
    return Installed(version, tuple(sorted(f"{name}=={version}" for name, version in found.items())))


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
        index=f"--extra-index-url {_CPU_INDEX} " if have.cpu_only and not options.enable_gpu else "",
        files=" ".join(["constraints.txt", "requirements.txt", *([wheel] if wheel else [])]),
        wanted=" ".join([*([f"./{wheel}"] if wheel else []), "--requirement requirements.txt"]),
        package=options.package,
        user=_USER,
        port=port,
        command=", ".join(f'"{word}"' for word in command),
    )


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
    requirements = _requirements(package)
    have = installed(_needed(requirements))
    text = containerfile(options, have, base=base, wheel=wheel.name if wheel else "", trusted=trusted)
    gpu = options.enable_gpu
    constraints = [one.replace("+cpu", "") if gpu else one for one in have.constraints]
    try:
        if folder.is_dir() and any(folder.iterdir()):
            raise UsageError(f"{folder} has something in it", hint="--out NEW-FOLDER")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(package, folder / "package")
        if wheel is not None:
            shutil.copyfile(wheel, folder / wheel.name)
        (folder / "constraints.txt").write_text("".join(f"{one}\n" for one in constraints), encoding="utf-8")
        (folder / REQUIREMENTS).write_text("".join(f"{one}\n" for one in requirements), encoding="utf-8")
        (folder / "Containerfile").write_text(text, encoding="utf-8")
    except OSError as error:
        raise EnvironmentFault(f"{folder} cannot be written: {error.strerror or error}", hint="--out FOLDER") from error
    return sorted(folder.iterdir())


def _requirements(package: Path) -> list[str]:
    """Return what a package needs; at least ai4sdk."""
    try:
        lines = (package / REQUIREMENTS).read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return [line.strip() for line in lines if line.strip() and not line.startswith(("#", "-"))] or [ROOT]


def _needed(requirements: Iterable[str]) -> list[str]:
    """Return the names of what is needed without extras."""
    names = []
    for text in requirements:
        requirement, _, marker = text.partition(";")
        if "extra ==" not in marker.replace('"', "'").replace("extra=", "extra ="):
            names.append(re.split(r"[\s\[<>=!~(;]", requirement.strip(), maxsplit=1)[0])
    return names


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
