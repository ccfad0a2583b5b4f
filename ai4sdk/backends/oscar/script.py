"""The script of a service. Pure: what it is depends on the description alone.

OSCAR's supervisor starts it for each call, and looks at no exit status: whatever a script ends with, the supervisor
uploads what is in the output folder, ends with 0, and the job has *Succeeded*. It does end with 1 if a file cannot be
read that it is to upload or to answer with. So the script first lays a link to nowhere in the output folder, where the
supervisor comes by last, and takes it away once there is a result: a script that fails, or dies, makes a job that has
*Failed*, and a synchronous call an error of HTTP. What the script says goes to the supervisor's own log, too, as it
would be lost otherwise.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

from ai4sdk.spec.oscar import ERRORS, RESULTS, OscarBackend, StorageIO

__all__ = ["PORT", "SCRIPT_NAME", "script_of", "serve_command"]

SCRIPT_NAME = "script.sh"
PORT = "AI4SDK_PORT"
"""Variable with another port to serve at, as the stand-in has no containers with ports of their own."""

_SCRIPT = string.Template("""\
#!/bin/sh
# Service $service, written by ai4sdk. It is started by OSCAR's supervisor for each call.
PACKAGE="$${AI4SDK_PACKAGE:-$package}"

fits() { # whether the package is the one that this service was made for
    for part in $parts; do
        grep -q "$$part" "$$PACKAGE/model.json" || {
            echo "$$PACKAGE is not the model package that this service was made for"
            return 1
        }
    done
}
$serve
# ---- what this call is about, and what its files are called
name="$${INPUT_FILE_PATH##*/}"
${unmeant}if [ -n "$$STORAGE_OBJECT_KEY" ]; then
    case "$$STORAGE_OBJECT_KEY" in
$inputs        *) name="$$STORAGE_OBJECT_KEY" ;;
    esac
fi
case "/$$name/" in */../* | */./* | *//*) name="$${name##*/}" ;; esac
file="$${name##*/}"
folder="$${name%"$$file"}"
result="$$TMP_OUTPUT_DIR/results/$$name.json"
error="$$TMP_OUTPUT_DIR/errors/$$name.error.json"
log="$$TMP_OUTPUT_DIR/logs/$$name.log"

# ---- until there is a result this is a failure
# The supervisor looks at no exit status. It fails only if it cannot upload a file, so here is one that leads nowhere.
barrier="$$TMP_OUTPUT_DIR/$barrier"
bar() {
    mkdir -p "$${barrier%/*}" "$${error%/*}" && ln -sf /nowhere "$$barrier"
}
bar && said="$$(mktemp)" || { kill -TERM "$$PPID"; exit 7; }

escaped() { # text for JSON
    tr -d '\\000-\\010\\013-\\037\\177' | sed -e 's/\\\\/\\\\\\\\/g' -e 's/"/\\\\"/g' -e 's/\t/\\\\t/g' |
        awk '{ printf "%s%s", between, $$0; between = "\\\\n" }'
}

fail() { # STATUS: leave the reason, and no half result
    rm -rf "$$TMP_OUTPUT_DIR/results" "$$TMP_OUTPUT_DIR/logs"
    bar
    printf '{"service": "%s", "input": "%s", "exit_status": %d, "error": "%s"}\\n' "$service" \\
        "$$(printf '%s' "$$name" | escaped)" "$$1" "$$(tail -n 50 "$$said" | escaped)" > "$$error"
    { echo "the prediction failed with status $$1:"; cat "$$said"; } | tee -a "/proc/$$PPID/fd/2" 2> /dev/null
    rm -f "$$said"
$die    exit "$$1"
}

# ---- predict
fits > "$$said" 2>&1 || fail 3
mkdir -p "$${result%/*}"
ai4sdk predict "$$PACKAGE"$trust --input "$$INPUT_FILE_PATH" --output "$$result" > "$$said" 2>&1
status=$$?
[ "$$status" -eq 0 ] || fail "$$status"
[ -s "$$result" ] || { echo "the prediction left no result" >> "$$said"; fail 1; }

# ---- results and logs apart; a synchronous call is answered with the only file there is
if [ -n "$$STORAGE_OBJECT_KEY" ]; then
    mkdir -p "$${log%/*}" && cp "$$said" "$$log" || fail 1
fi
cat "$$said"
rm -rf "$$said" "$$TMP_OUTPUT_DIR/errors" "$$barrier"
""")

_SERVE = string.Template("""
# An exposed service: OSCAR starts this script by itself, once, and no supervisor.
if [ -z "$$TMP_OUTPUT_DIR" ]; then
    fits || exit 3
    exec $command
fi
""")

_UNMEANT = """\
pass_over() { # OSCAR starts a service for every file of an input, whatever it is called
    echo "$STORAGE_OBJECT_KEY is not meant by the inputs of this service"
    exit 0
}
"""

_DIE = """\
    # Nothing is uploaded, so nothing can fail but the supervisor itself.
    [ -z "$STORAGE_OBJECT_KEY" ] || kill -TERM "$PPID"
"""

_LAST = "the-prediction-failed"


def script_of(options: OscarBackend, service: str, parts: Sequence[str] = (), *, trusted: bool = False) -> str:
    """Return the script of a service.

    Parameters
    ----------
    options
        The description.
    service
        Its name.
    parts
        Hashes of the package it serves, such as that of its weights; a package with others is refused.
    trusted
        Whether code inside the package is run.
    """
    return _SCRIPT.substitute(
        service=service,
        package=options.package,
        parts=" ".join(parts),
        trust=" --trust-code" if trusted else "",
        serve=_served(options, trusted) if options.expose else "",
        unmeant=_UNMEANT if any(one.prefix or one.suffix for one in options.input) else "",
        inputs=_inputs(options.input),
        barrier=_barrier(options.output),
        die="" if options.output else _DIE,
    )


def serve_command(package: str, port: int, *, trusted: bool, gpu: bool) -> list[str]:
    """Return the command that serves a package for everybody who reaches its port."""
    return _serve(package, str(port), trusted=trusted, gpu=gpu)


def _serve(package: str, port: str, *, trusted: bool, gpu: bool) -> list[str]:
    command = ["ai4sdk", "serve", package, "serving.host=0.0.0.0", f"serving.port={port}"]
    return [*command, *(["serving.device=auto"] if gpu else []), *(["--trust-code"] if trusted else [])]


def _served(options: OscarBackend, trusted: bool) -> str:
    assert options.expose is not None
    port = f"${{{PORT}:-{options.expose.api_port}}}"
    return _SERVE.substitute(command=" ".join(_serve('"$PACKAGE"', port, trusted=trusted, gpu=options.enable_gpu)))


def _inputs(inputs: list[StorageIO]) -> str:
    """Return the branches that leave out of an object's name what all objects of an input have in common.

    They pass over objects that are not meant, too. Inputs of the same folder in several buckets share a branch, as an
    object's key is without its bucket.
    """
    meant: dict[str, list[str]] = {}
    for one in inputs:
        patterns = [f"{_quoted(begin)}*{_quoted(end)}" for begin in one.prefix or [""] for end in one.suffix or [""]]
        meant.setdefault(one.path.partition("/")[2], []).extend(patterns)
    return "".join(
        _branch(_quoted(folder), meant[folder]) for folder in sorted(meant, key=lambda one: (-len(one), one))
    )


def _branch(folder: str, patterns: list[str]) -> str:
    name = f'name="${{STORAGE_OBJECT_KEY#{folder}/}}"' if folder else 'name="$STORAGE_OBJECT_KEY"'
    if "*" in patterns:
        return f"        {folder}/*) {name} ;;\n" if folder else ""
    choice = f'case "${{name##*/}}" in {" | ".join(dict.fromkeys(patterns))}) ;; *) pass_over ;; esac'
    return f"        {folder + '/' if folder else ''}*)\n            {name}\n            {choice}\n            ;;\n"


def _quoted(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_./" else f"\\{letter}" for letter in text)


def _barrier(outputs: list[StorageIO]) -> str:
    """Return the path of the link that the supervisor stumbles over: beyond the file that says why, if that is kept.

    The supervisor goes through a folder's files before the folders in it.
    """
    keeping = next((one for one in outputs if one.takes(ERRORS, ".error.json")), None)
    if keeping is not None or not outputs:
        return f"{ERRORS}/${{folder}}{_LAST}/$file.error.json"
    first: Any = next(one for one in outputs if one.takes(RESULTS, ".json"))
    return f"{first.prefix[0] if first.prefix else ''}{_LAST}{first.suffix[0] if first.suffix else ''}"
