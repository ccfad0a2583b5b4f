"""A wheel of ai4sdk for an image, made of what it was installed from here, as the package index may not have it."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

from ai4sdk.errors import EnvironmentFault

__all__ = ["make_wheel", "source"]


def source() -> str | None:
    """Return where ai4sdk was installed from, as pip takes it, or nothing if that was a package index.

    Source of the format: PEP 610, ``direct_url.json``. A commit, or an archive whose hash is known, is the same one; a
    folder is as it is now.
    """
    text = importlib.metadata.distribution("ai4sdk").read_text("direct_url.json")
    if text is None:
        return None
    origin = json.loads(text)
    url: str = origin["url"]
    if "vcs_info" in origin:
        url = f"{origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}"
    marks = [("sha256", origin.get("archive_info", {}).get("hashes", {}).get("sha256"))]
    marks.append(("subdirectory", origin.get("subdirectory")))
    fragment = "&".join(f"{name}={value}" for name, value in marks if value)
    return f"{url}#{fragment}" if fragment else url


def make_wheel(folder: Path) -> Path | None:
    """Make a wheel of what ai4sdk was installed from and return it, or nothing if that was a package index.

    Raises
    ------
    EnvironmentFault
        If pip cannot make one.
    """
    where = source()
    if where is None:
        return None
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-input", "--no-deps"]
    argv = [*pip, "--wheel-dir", str(folder), where]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    made = sorted(folder.glob("*.whl"))
    if done.returncode or not made:
        raise EnvironmentFault(
            f"no wheel can be made of ai4sdk, which was installed from {where}:\n{done.stderr.strip()}",
            hint=f"make one by `pip wheel --no-deps {where}`, or of a folder `uv build --wheel`, then --wheel FILE",
        )
    return made[0]
