"""A module as people write them for DEEPaaS, that can be asked to misbehave."""

import contextlib
import os
import pathlib
import signal
import struct
import sys
import tempfile
import time

from webargs import fields, validate

MODES = ["ok", "raise", "attribute", "not implemented", "exit", "abort", "vanish", "hang", "print", "unserialisable"]
MODES += ["huge", "nan", "refuse", "fork", "answer on our socket", "numpy", "stdout", "interrupt", "pretend"]
WARMED = []

print("pond is being imported")
time.sleep(float(os.environ.get("POND_IMPORT", 0)))


def warm():
    WARMED.append(os.getpid())
    os.write(1, b"pond is warm\n")
    if os.environ.get("POND_WARM") == "raise" or pathlib.Path(os.environ.get("POND_WARM_FILE", "?")).exists():
        raise RuntimeError("no water")


def get_metadata():
    return {
        "name": "pond",
        "description": "Counts fish.",
        "author": "An Angler",
        "license": "MIT",
        "version": "1.2",
        "url": "https://example.org/pond",
    }


def get_predict_args():
    return {
        "data": fields.Field(
            missing=None, allow_none=True, type="file", location="form", description="An image of the pond."
        ),
        "n": fields.Int(missing=3, validate=validate.Range(min=1, max=10), description="How many."),
        "ratio": fields.Float(missing=0.5),
        "mode": fields.Str(missing="ok", enum=MODES, validate=validate.OneOf(MODES), description="What to do."),
        "flag": fields.Bool(missing=False),
        "word": fields.Str(missing="carp", validate=validate.Length(max=20)),
        "lst": fields.List(fields.Int(), missing=[1, 2]),
        "cfg": fields.Dict(missing={"a": 1}),
        "day": fields.Date(missing=None, allow_none=True),
        "accept": fields.Str(
            missing="application/json",
            location="headers",
            validate=validate.OneOf(["application/json", "image/png", "application/zip"]),
        ),
    }


def predict(**args):
    mode = args["mode"]
    if mode == "raise":
        raise ValueError("too deep")
    if mode == "attribute":
        raise AttributeError("no such fish")
    if mode == "not implemented":
        raise NotImplementedError("one day")
    if mode == "exit":
        sys.exit(3)
    if mode == "abort":
        print("about to abort")
        os.abort()
    if mode == "vanish":
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "hang":
        time.sleep(3600)
    if mode == "print":
        print("a line for people", flush=True)
        os.write(1, b"\x00\x00\x00\x02not a frame {}")
        os.system("echo a line of a child")
    if mode == "unserialisable":
        import numpy as np

        return {"ok": 1, "fish": [{"weight": np.float32(2.5)}]}
    if mode == "huge":
        return "x" * (8 << 20)
    if mode == "nan":
        return {"weight": float("nan"), "depth": [float("inf"), 1.0]}
    if mode == "refuse":
        from aiohttp import web

        raise web.HTTPBadRequest(reason="no fish on Mondays")
    if mode == "fork":  # a child that holds all our descriptors and outlives us
        child = os.fork()
        if child == 0:
            time.sleep(600)
            os._exit(0)
        print(f"left behind: {child}.", flush=True)
        os._exit(9)
    if mode == "answer on our socket":
        for number in range(3, 64):
            with contextlib.suppress(OSError):
                os.write(number, b"\xff" * 64)
        time.sleep(30)
    if mode == "stdout":  # as loggers do that know print() alone
        sys.stdout = type("Tee", (), {"write": lambda self, text: os.write(2, text.encode())})()
        print("told all the same")
    if mode == "interrupt":
        raise KeyboardInterrupt
    if mode == "pretend":
        head = b'{"ok": true, "content_type": "application/json"}'
        for number in range(3, 64):
            with contextlib.suppress(OSError):
                os.write(number, struct.pack(">IQ", len(head), 4) + head + b"evil")
    if mode == "numpy":
        import numpy as np

        return {"sum": int(np.asarray(args["lst"]).sum()), "version": np.__version__}
    if args["accept"] == "image/png":
        return b"\x89PNG of " + str(args["n"]).encode()
    if args["accept"] == "application/zip":
        with tempfile.NamedTemporaryFile(delete=False) as file:
            file.write(b"PK of " + str(args["n"]).encode())
        return open(file.name, "rb")
    shown = {name: value for name, value in args.items() if name not in ("data", "day")}
    if args["data"] is not None:
        data = args["data"]
        if isinstance(data, str):
            shown["data"] = data
        else:
            with open(data.filename, "rb") as file:
                shown["data"] = [data.name, data.original_filename, data.content_type, file.read().decode("latin-1")]
    shown["day"] = None if args["day"] is None else args["day"].isoformat()
    return shown


def get_train_args():
    return {
        "seconds": fields.Float(missing=0.2, description="How long it takes."),
        "fail": fields.Bool(missing=False),
        "epochs": fields.Int(required=True),
        "answer": fields.Str(missing="plain"),
        "data": fields.Field(missing=None, allow_none=True, type="file", location="form"),
    }


def train(**args):
    print("training for", args["epochs"], "epochs", flush=True)
    if args["answer"] == "silent":
        sys.stdout.close()
    if args["answer"] == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            os.setsid()
        print("not going", flush=True)
    end = time.time() + args["seconds"]
    while time.time() < end:
        time.sleep(0.02)
    if args["fail"]:
        raise RuntimeError("it ran dry")
    if args["answer"] == "unserialisable":
        return {1, 2}
    if args["answer"] == "vanish":
        os.kill(os.getpid(), signal.SIGKILL)
    if args["data"] is not None:
        with open(args["data"].filename) as file:
            return {"epochs": args["epochs"], "read": file.read()}
    return {"epochs": args["epochs"]}
