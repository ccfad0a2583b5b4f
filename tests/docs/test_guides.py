"""Every command of the guides and of the README works, in the order it is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
README = DOCS.parent / "README.md"
FENCE = re.compile(r"^```(\w+)?(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://)([^)#]+)")

COORDINATOR = """
PORT=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
COORDINATOR=localhost:$PORT
mkdir elsewhere; cd elsewhere
ai4sdk federated certificates tls localhost
ai4sdk federated token issue north --out ../north.token
ai4sdk federated server config=quickstart training=federated training.max_epochs=2 tracking=none --no-data \
  --address 127.0.0.1:$PORT --certificate tls/server.pem --key tls/server.key --detach
cd ..; cp elsewhere/tls/ca.pem .
until ai4sdk federated show $COORDINATOR --site north --token-file north.token --ca ca.pem 2> /dev/null; do sleep 1; done
"""


def blocks(page: Path) -> list[tuple[str, str | None, str]]:
    return [(language, file or None, text) for language, file, text in FENCE.findall(page.read_text(encoding="utf-8"))]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "name",
    [
        "quickstart",
        "bring-your-own-module",
        "your-own-data",
        "python",
        "sweep-and-search",
        "from-one-gpu-to-many",
        "rehearse-a-federation",
        "federate-between-institutions",
        "join-as-a-site",
        "serve-a-model",
        pytest.param("slurm", marks=pytest.mark.slurm),
        "on-kubernetes",
        pytest.param("on-ray", marks=pytest.mark.ray),
        "write-a-backend",
        "deploy-to-oscar",
        "process-files-as-they-arrive",
        "watch-for-drift",
        "serve-a-deepaas-module",
    ],
)
def test_a_guides_commands_work_as_written(name, tmp_path, request):
    """Run the page as one shell session; files it shows are written where it says, and Python is run, too."""
    if name == "slurm":
        request.getfixturevalue("slurm")
    if name == "on-ray":
        request.getfixturevalue("ray")
    if name == "on-kubernetes":
        request.getfixturevalue("kubernetes")
    script = ["set -e"]
    if name == "join-as-a-site":  # somebody else coordinates
        script.append(COORDINATOR)
    for number, (language, file, text) in enumerate(blocks(DOCS / "guides" / f"{name}.md")):
        if file is not None:
            script.append(f"mkdir -p $(dirname {file})\ncat > {file} <<'END_OF_FILE'\n{text}END_OF_FILE")
        elif language == "sh":
            script.append(text)
        elif language == "python":
            script.append(f"cat > block{number}.py <<'END_OF_FILE'\n{text}END_OF_FILE\npython block{number}.py")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("page", [README, *sorted(DOCS.rglob("*.md"))], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readmes_error_example_is_what_is_printed(tmp_path):
    (_, _, shown), *_ = [block for block in blocks(README) if block[0] == "console"]
    command, _, expected = shown.partition("\n")
    done = subprocess.run(
        [sys.executable, "-m", *command.removeprefix("$ ").split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == expected


def test_the_reference_is_up_to_date():
    from ai4sdk.config.schema import reference_page

    assert (DOCS / "reference" / "configuration.md").read_text(encoding="utf-8") == reference_page(), (
        "ai4sdk schema --reference > docs/reference/configuration.md"
    )
