"""`ai4sdk oscar manifests`, `image`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ai4sdk.backends.kubernetes.manifests import to_yaml
from ai4sdk.backends.oscar.image import require_new, write_context
from ai4sdk.backends.oscar.manifests import Kind, manifest, unsaid
from ai4sdk.backends.oscar.wheel import make_wheel
from ai4sdk.cli.oscar_options import package_of, parser_for, read
from ai4sdk.errors import NotFound

EPILOG = """\
examples:
  ai4sdk oscar image latest --out image
  buildah build --timestamp 0 --tag registry.example.org/fish:1 image
  ai4sdk oscar manifests latest --kind knative backend.image=registry.example.org/fish:1 | kubectl apply -f -
"""


def manifests(command: str, argv: Sequence[str]) -> int:
    """Print an object for Kubernetes."""
    parser = parser_for(
        command,
        "Print the same service as a Knative Service, or as an InferenceService of KServe.",
        EPILOG,
        words="[RUN] [KEY=VALUE]",
    )
    parser.add_argument("--kind", choices=["knative", "kserve"], default="knative", help="default: knative")
    request = read(command, parser, argv, names=["RUN"], more=1)
    kind: Kind = request.args.kind
    print(to_yaml([manifest(kind, request.options, package_of(request).served)]), end="")
    if nothing := unsaid(request.options):
        print(f"note: without OSCAR this says nothing: {', '.join(nothing)}", file=sys.stderr)
    if request.options.environment.secrets:
        print("note: it reads a Secret of its own name, which is yours to make", file=sys.stderr)
    return 0


def image(command: str, argv: Sequence[str]) -> int:
    """Write what a builder of images is given."""
    parser = parser_for(
        command, "Write a Containerfile, and all that it needs, into a folder.", EPILOG, words="[RUN] [KEY=VALUE]"
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="a new folder")
    parser.add_argument("--base", metavar="IMAGE", help="image to begin with (default: Python of this version, slim)")
    parser.add_argument("--wheel", metavar="FILE", help="wheel of ai4sdk (default: made of what it was installed from)")
    request = read(command, parser, argv, names=["RUN"], more=1)
    package, args = package_of(request), request.args
    if args.wheel and not Path(args.wheel).is_file():
        raise NotFound(f"there is no wheel {args.wheel}", hint="pip wheel --no-deps ai4sdk")
    base = args.base or f"docker.io/library/python:{sys.version_info.major}.{sys.version_info.minor}-slim"
    trusted = package.served.trusted
    require_new(Path(args.out))
    with tempfile.TemporaryDirectory() as made:
        wheel = Path(args.wheel) if args.wheel else make_wheel(Path(made))
        written = write_context(
            Path(args.out), package.folder, request.options, base=base, wheel=wheel, trusted=trusted
        )
    for path in written:
        print(path)
    if "@sha256:" not in base:
        print("note: a tag may be another image tomorrow; --base NAME@sha256:… builds the same then", file=sys.stderr)
    print(f"  → buildah build --timestamp 0 --tag NAME {args.out}")
    return 0
