"""A model's process: ``python -m ai4sdk.serving.process SOCKET SLAB`` loads a package, tries it, answers the front."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ai4sdk.serving.messages import Frames, pack, pack_responses, requests_of
from ai4sdk.serving.shared import Slab
from ai4sdk.worker.allocation import give_back_memory, keep_memory
from ai4sdk.worker.startup import load_to_predict, quick_imports

__all__ = ["main"]

_READ = 1 << 20
_SWITCH = 0.0005
"""Seconds that what answers waits at most for what watches: both are threads of one interpreter."""


def main(argv: list[str]) -> int:
    """Serve the socket whose descriptor is given, beside that of shared memory, until it is closed."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the front's: it lets requests end, and closes the socket
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(level="INFO", stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    keep_memory()
    connection = socket.socket(fileno=int(argv[0]))
    shared = Slab(int(argv[1])).view()
    # Whatever fails is told when a model is to be loaded.
    with contextlib.suppress(Exception), quick_imports(compiler=False):
        importlib.import_module("ai4sdk.worker.model")
    frames, buffer = Frames(), bytearray(_READ)
    answering = watch = None
    # With what is to be loaded comes a socket, where this is one of several processes that one watches for drift.
    first, descriptors, _, _ = socket.recv_fds(connection, _READ, 1, socket.MSG_CMSG_CLOEXEC)
    buffer[: len(first)], count = first, len(first)
    while count:
        for head, body in frames.feed(memoryview(buffer)[:count]):
            if head[0] == "load":
                answering, watch, ready = _load(head[1], descriptors)
                _send(connection, pack(["ready", ready]))
                if answering is None:
                    return 1
            elif head[0] == "tell":
                _send(connection, pack(["told", head[1], watch.snapshot() if watch is not None else None]))
            elif head[0] == "ask":
                assert answering is not None
                started = time.perf_counter()
                responses, facts = answering.answer(list(requests_of(head[2], body, shared)))
                told = {**vars(facts), "seconds": time.perf_counter() - started}
                _send(connection, pack_responses(head[1], responses, told))
        count = connection.recv_into(buffer)
    return 0


def _load(settings: Mapping[str, Any], descriptors: Sequence[int]) -> tuple[Any, Any, dict[str, Any]]:
    """Load and try a model.

    Parameters
    ----------
    settings
        What, and how; see `ai4sdk.serving.pool.PoolSettings`.
    descriptors
        That of the line over which features are handed to the process that watches, if there are several processes.

    Returns
    -------
    tuple
        What answers with it, what watches it for drift, and what the front is told of it, or of what went wrong.
    """
    from ai4sdk.errors import Ai4Error

    try:
        return _loaded(settings, descriptors)
    except Ai4Error as error:
        return None, None, {"error": error.message, "hint": error.hint, "exit_code": error.exit_code}
    except Exception as error:
        logging.getLogger(__name__).exception("the model could not be loaded")
        return None, None, {"error": f"{type(error).__name__}: {error}", "hint": None, "exit_code": 1}


def _loaded(settings: Mapping[str, Any], descriptors: Sequence[int]) -> tuple[Any, Any, dict[str, Any]]:
    with quick_imports(compiler=False):
        import torch
        from PIL import Image

        from ai4sdk.serving.answering import Answering
        from ai4sdk.serving.contract import contract_of
        from ai4sdk.serving.question import Served
        from ai4sdk.serving.warmup import golden_samples, warm_up
        from ai4sdk.worker.inputs import BATCH_SIZE
        from ai4sdk.worker.loading import find_package

    torch.set_num_threads(1)  # what is best is measured later
    torch.set_grad_enabled(False)
    Image.MAX_IMAGE_PIXELS = settings["pixels"] // 2  # Pillow refuses twice as many
    folder = Path(settings["folder"])
    started = time.perf_counter()
    model = load_to_predict(folder, settings["trust_code"] or None, device=settings["device"])
    contract = contract_of(model.description)
    rows = BATCH_SIZE

    def predict(samples: Any) -> Any:
        return model(samples, batch_size=rows)

    answering = Answering(predict, contract, Served(settings["name"], settings["version"]))
    package = find_package(folder, None).package
    tried = warm_up(answering, package)
    chosen = None
    if (samples := golden_samples(package)) is not None:
        from ai4sdk.serving.engines import choose

        chosen = choose(model, samples, settings["engine"], settings["threads"])
        answering.rows = chosen.rows
        rows = chosen.rows or BATCH_SIZE
        tried = warm_up(answering, package)
    give_back_memory()
    watch, unwatched = _watch(settings, package, descriptors)
    if watch is not None:
        answering.observe = watch.feed
    facts = {
        "contract": contract.to_json(),
        "description": model.description.model_dump(mode="json", exclude={"extra_state", "shared_weights"}),
        "batches": tried.alike_together,
        "golden": tried.requests,
        "engine": asdict(chosen) if chosen is not None else None,
        "unwatched": unwatched,
        "seconds": round(time.perf_counter() - started, 3),
        "pid": os.getpid(),
    }
    return answering, watch, facts


def _watch(settings: Mapping[str, Any], package: Path, descriptors: Sequence[int]) -> tuple[Any, str | None]:
    """Start what watches for drift, or what hands over to who does; else return why nothing does."""
    if settings["drift"] is None:
        return None, "serving.drift is null"
    from ai4sdk.drift.handover import Handover, receive
    from ai4sdk.drift.reference import read_reference
    from ai4sdk.drift.watch import DriftWatch
    from ai4sdk.errors import NotFound
    from ai4sdk.spec.drift import DriftWatching

    try:
        reference = read_reference(package)
    except NotFound as error:
        return None, error.message
    watching, name = DriftWatching.model_validate(settings["drift"]), settings["name"]
    sys.setswitchinterval(_SWITCH)
    line = socket.socket(fileno=descriptors[0]) if descriptors else None
    if line is not None and not settings["watches"]:
        return Handover(reference, watching, line, name).start(), None
    events = Path(settings["drift_events"]) if settings["drift_events"] else None
    watch = DriftWatch(reference, watching, events=events, name=name, version=settings["version"]).start()
    if line is not None:
        receive(line, watch)
    return watch, None


def _send(connection: socket.socket, pieces: list[bytes | memoryview]) -> None:
    total = sum(map(len, pieces))
    if total < _READ:
        connection.sendall(b"".join(pieces))
        return
    for piece in pieces:
        connection.sendall(piece)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ConnectionError:  # the front is gone, so nobody waits for what this process had to say
        sys.exit(0)
