"""A module that was written for DEEPaaS, asked from another process; run by the Python of the module's own environment.

    python -I agent.py serve FD NAME       answer frames on a socket
    python -I agent.py train FOLDER NAME N train as FOLDER/training.json says, with at most N at once beside each other,
                                           and leave FOLDER/outcome.json
    python -I agent.py names FD            say which modules there are

It has to run with any Python since 3.6, with nothing but the standard library and what the module brings along:
marshmallow 2 or 3, webargs of any age. It imports nothing of ours.
"""

import collections
import contextlib
import datetime
import fcntl
import importlib
import io
import json
import os
import re
import socket
import struct
import sys
import time
import traceback
from typing import Any, Callable, Dict, List, Optional, Tuple

GROUP = "deepaas.v2.model"
HEADER = struct.Struct(">IQ")
JSON_TYPES = ("application/json", "*/*")
DEEPEST = 200
MARKS = re.compile(r'\\.|["\[\]{}]', re.DOTALL)  # what matters of JSON to tell its depth
MOST_TOLD = 100000

UploadedFile = collections.namedtuple("UploadedFile", ("name", "filename", "content_type", "original_filename"))
"""What a module gets for a file; its path is `filename`."""


class Invalid(Exception):
    """Arguments a module does not take: messages by argument."""

    def __init__(self, messages: Any) -> None:
        super().__init__(str(messages))
        self.messages = messages


class BrokenJson(Exception):
    """The body should be JSON, is looked at, and is none."""


class Unanswerable(Exception):
    """A module answered something that cannot be sent."""


# -- frames ----------------------------------------------------------------------------------------------------------


def send(channel: socket.socket, head: Dict[str, Any], body: bytes = b"") -> None:
    """Send a frame."""
    text = json.dumps(head, default=str).encode()
    channel.sendall(HEADER.pack(len(text), len(body)) + text)
    if body:
        channel.sendall(body)


def receive(channel: socket.socket) -> Optional[Tuple[Dict[str, Any], bytes]]:
    """Return the next frame, or nothing once the other side is gone."""
    header = receive_exactly(channel, HEADER.size)
    if header is None:
        return None
    head_size, body_size = HEADER.unpack(header)
    text = receive_exactly(channel, head_size + body_size)
    return None if text is None else (dict(json.loads(text[:head_size].decode())), text[head_size:])


def receive_exactly(channel: socket.socket, size: int) -> Optional[bytes]:
    """Return that many bytes, or nothing if there are fewer."""
    parts = []  # type: List[bytes]
    while size:
        part = channel.recv(min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


# -- the entry point -------------------------------------------------------------------------------------------------


def entry_points() -> Dict[str, Callable[[], Any]]:
    """Return how to load each module of this environment, by name."""
    try:
        metadata = importlib.import_module("importlib.metadata")
    except ImportError:
        try:
            metadata = importlib.import_module("importlib_metadata")
        except ImportError:
            resources = importlib.import_module("pkg_resources")
            return {point.name: point.resolve for point in resources.iter_entry_points(GROUP)}
    found = metadata.entry_points()
    chosen = found.select(group=GROUP) if hasattr(found, "select") else found.get(GROUP, ())
    return {point.name: point.load for point in chosen}


def answers(module: Any, name: str) -> Any:
    """Ask a module for something it may not have: nothing then, as in DEEPaaS."""
    function = getattr(module, name, None)
    if function is None:
        return None
    try:
        return function()
    except (NotImplementedError, AttributeError) as error:
        if not isinstance(error, NotImplementedError):
            complain(f"{name}() failed; going on as if the module had none")
        return None


def complain(what: str) -> None:
    """Write the current error into the log."""
    note(f"{what}\n{traceback.format_exc()}")


def note(text: str) -> None:
    """Write into the log, whatever a module has made of `sys.stderr`."""
    with contextlib.suppress(OSError):
        os.write(2, text.encode("utf-8", "backslashreplace"))


def flush() -> None:
    """Let go of what a module has printed; it may have closed `sys.stdout`, or put something of its own there."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()


# -- arguments -------------------------------------------------------------------------------------------------------


class Arguments:
    """What a function of a module takes: marshmallow fields by name.

    Parameters
    ----------
    fields
        What ``get_predict_args()`` or ``get_train_args()`` returned.
    """

    def __init__(self, fields: Optional[Dict[str, Any]]) -> None:
        self.fields = fields or {}
        self.produces = ["application/json"]
        accept = self.fields.get("accept")
        choices = [list(check.choices) for check in validators(accept) if hasattr(check, "choices")] if accept else []
        if choices:
            # DEEPaaS takes */* besides, and answers the first type when none is asked for
            self.produces = choices[0] + ([] if "*/*" in choices[0] else ["*/*"])
            for check in validators(accept):
                if hasattr(check, "choices"):
                    check.choices = list(self.produces)
            set_default(accept, choices[0][0])
        self.schema = make_schema(self.fields) if self.fields else None

    def check(self, values: Dict[str, Any]) -> Dict[str, Any]:
        """Return values as the module takes them.

        Raises
        ------
        Invalid
            If it does not take them.
        """
        if self.schema is None:
            return {}
        given = {}
        for name, value in values.items():
            given[name] = untagged(name, value)
        return load(self.schema, given)

    def described(self) -> List[Dict[str, Any]]:
        """Return what the arguments are, ready for JSON."""
        return [describe(data_key(field, name), field) for name, field in self.fields.items()]


def untagged(name: str, tagged: Dict[str, Any]) -> Any:
    """Return a value as it was sent. What it is stands beside it, so that nobody's JSON can pass for a file."""
    if "list" in tagged:
        return [untagged(name, part) for part in tagged["list"]]
    if "json" in tagged:
        try:
            return read_json(tagged["json"])
        except ValueError:
            return tagged["json"]  # the module's own check says what it is not
    return uploaded(name, tagged["file"]) if "file" in tagged else tagged["value"]


def values_of(request: Dict[str, Any], body: bytes) -> Dict[str, Any]:
    """Return what a request has, tagged: outside of its JSON body, and in it."""
    held = in_body(body, request["in_json"])
    return dict(request["values"], **{name: {"value": value} for name, value in held.items()})


def in_body(body: bytes, names: Dict[str, bool], read: Optional[Callable[[str], Any]] = None) -> Dict[str, Any]:
    """Return what a JSON body has of some arguments, of which each may be a list.

    Raises
    ------
    BrokenJson
        If it is none.
    """
    if not names or not body.strip():
        return {}
    try:
        held = (read or read_json)(body.decode("utf-8"))
    except ValueError:
        raise BrokenJson from None
    if not isinstance(held, dict):
        return {}
    found = {name: held[name] for name in names if name in held}
    return {
        name: [value] if names[name] and not isinstance(value, list) and value is not None else value
        for name, value in found.items()
    }


def read_json(text: str) -> Any:
    """Read JSON; raise ValueError if it is none, or nested so deep that whoever handles it may give up."""
    if text.count("[") + text.count("{") > DEEPEST:
        depth, in_string = 0, False
        for match in MARKS.finditer(text):
            mark = match.group()
            if mark == '"':
                in_string = not in_string
            elif not in_string and mark[0] != "\\":
                depth += 1 if mark in "[{" else -1
                if depth > DEEPEST:
                    raise ValueError(f"it is nested deeper than {DEEPEST}")
    return json.loads(text)


def uploaded(name: str, file: Dict[str, Any]) -> Any:
    """Return what a module gets for a file; DEEPaaS's own class if the module has imported it."""
    theirs = sys.modules.get("deepaas.model.v2.wrapper")
    make = getattr(theirs, "UploadedFile", UploadedFile)
    return make(name, file["path"], file["content_type"], file["original_name"])


def marshmallow() -> Any:
    """Return the environment's marshmallow."""
    return importlib.import_module("marshmallow")


def is_version_2() -> bool:
    """Tell whether marshmallow is of the generation before `Schema.from_dict`."""
    return not hasattr(marshmallow().Schema, "from_dict")


def make_schema(fields: Dict[str, Any]) -> Any:
    """Make a schema of fields; what is not in it is ignored."""
    base = marshmallow().Schema
    if is_version_2():
        return type("Arguments", (base,), dict(fields))(strict=True)
    made = base.from_dict(dict(fields), name="Arguments")
    return made(unknown=marshmallow().EXCLUDE)


def load(schema: Any, values: Any) -> Dict[str, Any]:
    """Have marshmallow check and convert values."""
    try:
        loaded = schema.load(values)
    except marshmallow().ValidationError as error:
        raise Invalid(error.messages) from None
    return dict(loaded.data if is_version_2() else loaded)


def validators(field: Any) -> List[Any]:
    """Return what checks a field's values."""
    return list(getattr(field, "validators", None) or [])


def data_key(field: Any, name: str) -> str:
    """Return the name under which a request has a field."""
    return getattr(field, "data_key", None) or getattr(field, "load_from", None) or name


def default_of(field: Any) -> Any:
    """Return what is used when a request lacks a field; marshmallow's `missing` if nothing is."""
    return field.load_default if hasattr(field, "load_default") else field.missing


def set_default(field: Any, value: Any) -> None:
    """Set what is used when a request lacks a field."""
    setattr(field, "load_default" if hasattr(field, "load_default") else "missing", value)


TYPES = (
    ("Integer", "integer", "int32"),
    ("Float", "number", "float"),
    ("Number", "number", None),
    ("UUID", "string", "uuid"),
    ("Url", "string", "url"),
    ("Email", "string", "email"),
    ("String", "string", None),
    ("Boolean", "boolean", None),
    ("Date", "string", "date"),
    ("DateTime", "string", "date-time"),
    ("Time", "string", None),
    ("Dict", "object", None),
    ("Nested", "object", None),
    ("List", "array", None),
)  # a subclass before what it is derived from
SHOWN = {"format", "title", "description", "default", "multipleOf", "maximum", "exclusiveMaximum", "minimum"}
SHOWN |= {"exclusiveMinimum", "maxLength", "minLength", "pattern", "maxItems", "minItems", "uniqueItems", "enum"}
SHOWN |= {"type", "items", "properties", "example"}


def describe(name: str, field: Any) -> Dict[str, Any]:
    """Return what an argument is: a JSON schema, and where a request has it."""
    return {
        "name": name,
        "required": bool(field.required),
        "location": field.metadata.get("location"),
        "many": isinstance(field, marshmallow().fields.List) and type(field).__name__ != "DelimitedList",
        "schema": json_schema(field),
    }


def json_schema(field: Any) -> Dict[str, Any]:
    """Return a field's values as JSON schema, as far as its type, checks and metadata tell."""
    fields = marshmallow().fields
    shown = {}  # type: Dict[str, Any]
    for class_name, kind, form in TYPES:
        if isinstance(field, getattr(fields, class_name)):
            shown["type"] = kind
            if form:
                shown["format"] = form
            break
    default = default_of(field)
    if default is not marshmallow().missing and not callable(default):
        shown["default"] = in_json(default)
    if getattr(field, "allow_none", False):
        shown["x-nullable"] = True
    shown.update(limits(field))
    for key, value in field.metadata.items():
        dashed = key.replace("_", "-") if isinstance(key, str) and key.startswith("x_") else key
        if dashed in SHOWN or (isinstance(dashed, str) and dashed.startswith("x-")):
            shown[dashed] = in_json(value)
    if isinstance(field, fields.List):
        inner = getattr(field, "inner", None) or getattr(field, "container", None)
        shown.setdefault("items", json_schema(inner) if inner is not None else {})
    if isinstance(field, fields.Nested):
        nested = {"type": "object", "properties": properties(field.schema)}
        many = getattr(field, "many", False)
        shown.update({"type": "array", "items": nested} if many else nested)
    return shown


def limits(field: Any) -> Dict[str, Any]:
    """Return what a field's checks say about its values."""
    found = {}  # type: Dict[str, Any]
    is_list = isinstance(field, (marshmallow().fields.List, marshmallow().fields.Nested))
    for check in validators(field):
        low, high, equal = (getattr(check, key, None) for key in ("min", "max", "equal"))
        if hasattr(check, "choices"):
            found["enum"] = [in_json(choice) for choice in check.choices]
        elif hasattr(check, "comparable"):
            found["enum"] = [in_json(check.comparable)]
        elif hasattr(check, "equal"):
            names = ("minItems", "maxItems") if is_list else ("minLength", "maxLength")
            for key, value in zip(names, (low, high) if equal is None else (equal, equal)):  # noqa: B905
                if value is not None:
                    found[key] = value
        elif hasattr(check, "min") and hasattr(check, "max"):
            for key, value in (("minimum", low), ("maximum", high)):
                if value is not None:
                    found[key] = in_json(value)
        elif isinstance(getattr(check, "regex", None), type(re.compile(""))):
            found["pattern"] = check.regex.pattern
    return found


def properties(schema: Any) -> Dict[str, Any]:
    """Return the fields of a schema as JSON schemas."""
    return {data_key(field, name): json_schema(field) for name, field in schema.fields.items()}


def in_json(value: Any) -> Any:
    """Return a value if JSON has a form for it, else its text."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return str(value)
    return value


def versions() -> Dict[str, str]:
    """Return the versions of what people ask about."""
    packages = ("numpy", "marshmallow", "webargs", "deepaas", "torch", "tensorflow")
    return {package: version_of(package) for package in packages if package in sys.modules}


def version_of(package: str) -> str:
    """Return the version of a package, as it is installed or as it says."""
    try:
        return str(importlib.import_module("importlib.metadata").version(package))
    except ImportError:  # a Python without it, or a package that is only there to be imported
        return str(getattr(sys.modules[package], "__version__", "?"))


# -- answers ---------------------------------------------------------------------------------------------------------


def to_json(value: Any, whose: str) -> bytes:
    """Return a module's answer as JSON; numbers that are not finite, which JSON does not have, become null.

    Raises
    ------
    Unanswerable
        If JSON has no form for something in it, which is named.
    """
    try:
        return json.dumps(value, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError, OverflowError):
        pass
    try:
        return json.dumps(json.loads(json.dumps(value), parse_constant=lambda _: None)).encode()
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        place, found = first_unknown(value, "", 0) or ("", None)
        kind = f"a {type(found).__module__}.{type(found).__name__}" + (f" at {place}" if place else "")
        told = str(error) if found is None else kind
        raise Unanswerable(f"{whose} answered what JSON has no form for: {told}") from None


def first_unknown(value: Any, place: str, depth: int) -> Optional[Tuple[str, Any]]:
    """Find the first part of a value that JSON has no form for."""
    if value is None or isinstance(value, (str, int, float)):
        return None
    inside = []  # type: List[Tuple[str, Any]]
    if depth < 50 and isinstance(value, dict):
        for key in value:
            if key is not None and not isinstance(key, (str, int, float)):
                return (f"{place}, a key" if place else "a key"), key
        inside = [(f"{place}.{key}" if place else str(key), part) for key, part in value.items()]
    elif depth < 50 and isinstance(value, (list, tuple)):
        inside = [(f"{place}[{number}]", part) for number, part in enumerate(value)]
    elif not isinstance(value, (dict, list, tuple)):
        return place, value
    for where, part in inside:
        found = first_unknown(part, where, depth + 1)
        if found:
            return found
    return None


def to_bytes(value: Any, kind: str) -> bytes:
    """Return an answer of a type other than JSON: bytes, text, or what an open file holds."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, str):
        return value.encode()
    if hasattr(value, "original_filename"):  # DEEPaaS's ReturnedFile
        value = open(value.filename, "rb")  # noqa: SIM115 - closed where it is read
    if isinstance(value, io.IOBase) or hasattr(value, "read"):
        return read_file(value)
    raise Unanswerable(
        f"predict answered a {type(value).__name__} where {kind} was asked for; bytes, text or an open file can be sent"
    )


def read_file(file: Any) -> bytes:
    """Read an open file from its beginning, as DEEPaaS does, where it has one."""
    with file:
        if getattr(file, "seekable", lambda: False)():
            file.seek(0)
        found = file.read()
    return found.encode() if isinstance(found, str) else bytes(found)


def failure(error: BaseException) -> Dict[str, Any]:
    """Return what is told about an error; a status if it is one that aiohttp answers requests with.

    Errors of clients have statuses, too: that of a server which a module has asked is none of ours.
    """
    told = {"type": type(error).__name__, "message": words_of(error)}  # type: Dict[str, Any]
    theirs = getattr(sys.modules.get("aiohttp.web_exceptions"), "HTTPException", ())
    if isinstance(error, theirs) and 400 <= error.status <= 599:
        told["status"] = error.status
        told["message"] = str(error.reason or error)
    if isinstance(error, SystemExit):
        told["message"] = f"the module called exit({'' if error.code is None else error.code})"
    return {"failed": told}


def words_of(error: BaseException) -> str:
    """Return an error's text; one that cannot be had is no reason to fail again."""
    try:
        return str(error)
    except Exception as another:  # noqa: BLE001 - a module's classes may do anything
        return f"(its text raises {type(another).__name__})"


# -- serving ---------------------------------------------------------------------------------------------------------


class Agent:
    """A loaded module, and what may be asked of it.

    Parameters
    ----------
    module
        What the entry point names.
    name
        Name of the entry point.
    """

    def __init__(self, module: Any, name: str) -> None:
        self.module = module
        self.name = name
        self.takes = {
            "predict": Arguments(answers(module, "get_predict_args")),
            "train": Arguments(answers(module, "get_train_args")),
        }
        self.answer_schema, self.answer_name = answer_schema(getattr(module, "schema", None))

    def describe(self, *_: Any) -> Tuple[Dict[str, Any], bytes]:
        """Say what the module is, has, takes and answers."""
        return {
            "ok": True,
            "metadata": self.metadata(),
            "functions": [name for name in ("predict", "train", "warm") if hasattr(self.module, name)],
            "predict": self.takes["predict"].described(),
            "train": self.takes["train"].described(),
            "produces": self.takes["predict"].produces,
            "answer": None
            if self.answer_schema is None
            else {"name": self.answer_name, "properties": properties(self.answer_schema)},
            "python": ".".join(str(part) for part in sys.version_info[:3]),
            "versions": versions(),
        }, b""

    def metadata(self) -> Any:
        """Return what the module says of itself; one that cannot say it can still predict."""
        told = f"Could not load description from underlying model (loaded '{self.name}')"
        try:
            metadata = answers(self.module, "get_metadata")
            if metadata is not None:
                return json.loads(to_json(metadata, "get_metadata").decode())
        except Exception as error:  # noqa: BLE001 - whatever a module raises is told
            complain("get_metadata() failed")
            told += f": {failure(error)['failed']['message']}"
        return {"id": "0", "name": self.name, "description": told}

    def warm(self, *_: Any) -> Tuple[Dict[str, Any], bytes]:
        """Have the module load what it needs."""
        with contextlib.suppress(NotImplementedError):
            getattr(self.module, "warm", lambda: None)()
        return {"ok": True}, b""

    def check(self, request: Dict[str, Any], body: bytes) -> Tuple[Dict[str, Any], bytes]:
        """Check a function's arguments without calling it; return them as they are shown to people."""
        checked = self.takes[request["function"]].check(values_of(request, body))
        return {"ok": True, "args": {name: shown(value) for name, value in checked.items()}}, b""

    def predict(self, request: Dict[str, Any], body: bytes) -> Tuple[Dict[str, Any], bytes]:
        """Predict."""
        values = self.takes["predict"].check(values_of(request, body))
        answer = self.module.predict(**values)
        kind = values.get("accept", JSON_TYPES[0])
        if kind not in JSON_TYPES:
            body = to_bytes(answer, kind)
        else:
            kind = JSON_TYPES[0]
            body = self.in_schema(answer)
        if len(body) > request["most"]:
            raise Unanswerable(f"predict answered {len(body)} bytes; {request['most']} are allowed")
        return {"ok": True, "content_type": kind}, body

    def in_schema(self, answer: Any) -> bytes:
        """Return an answer in the form that the module declares, or that DEEPaaS gives it."""
        if self.answer_schema is None:
            return b'{"status": "OK", "predictions": ' + to_json(answer, "predict") + b"}"
        try:
            load(self.answer_schema, answer)
        except Invalid as error:
            told = json.dumps(error.messages)
            raise Unanswerable(f"predict answered what is not in the module's schema: {told}") from None
        return to_json(answer, "predict")

    def answer(self, request: Dict[str, Any], asked: bytes) -> Tuple[Dict[str, Any], bytes, bool]:
        """Answer one frame; the last tells whether to go on, which is not after what should have ended the process."""
        try:
            function = {"describe": self.describe, "warm": self.warm, "check": self.check, "predict": self.predict}
            head, body = function[request["do"]](request, asked)
            return head, body, True
        except Invalid as error:
            return {"invalid": told(error.messages)}, b"", True
        except BrokenJson:
            return {"broken_json": True}, b"", True
        except Unanswerable as error:
            note(f"{error}\n")
            return failure(error), b"", True
        except BaseException as error:  # noqa: BLE001 - whatever a module raises is its answer
            complain(f"{request['do']} failed")
            goes_on = isinstance(error, Exception)
            return {"ends": not goes_on, **failure(error)}, b"", goes_on


def answer_schema(declared: Any) -> Tuple[Any, str]:
    """Return the schema that a module declares for its answers, and its name; nothing if it declares none."""
    if declared is None:
        return None, ""
    if not isinstance(declared, dict):
        made = declared() if isinstance(declared, type) else declared
        name = type(made).__name__
        return made, name[: -len("Schema")] if name.endswith("Schema") and name != "Schema" else name
    base = marshmallow().Schema
    if is_version_2():
        return type("ModelPredictionResponse", (base,), dict(declared))(strict=True), "ModelPredictionResponse"
    return base.from_dict(dict(declared), name="ModelPredictionResponse")(), "ModelPredictionResponse"


def told(messages: Any) -> Any:
    """Return why arguments are not taken, where there is not too much of it: a list may be wrong at each place."""
    if len(json.dumps(messages, default=str)) <= MOST_TOLD:
        return messages
    return {name: ["Not valid, in more places than can be told."] for name in messages}


def shown(value: Any) -> Any:
    """Return an argument's value as it is shown in the record of a training."""
    if hasattr(value, "original_filename"):
        return {"content_type": value.content_type, "original_filename": value.original_filename}
    value = in_json(value)
    size = len(json.dumps(value))
    return value if size <= MOST_TOLD else f"({size} bytes of JSON)"


def serve(channel: socket.socket, name: str) -> None:
    """Load a module and answer frames until the other side is gone."""
    try:
        points = entry_points()
        if name not in points:
            send(channel, {"unknown": sorted(points)})
            return
        agent = Agent(points[name](), name)
    except BaseException as error:  # noqa: BLE001 - a module's import may do anything
        complain("the module cannot be loaded")
        send(channel, failure(error))
        return
    send(channel, {"ok": True})
    going_on = True
    while going_on:
        frame = receive(channel)
        if frame is None:
            return
        request, asked = frame
        head, body, going_on = agent.answer(request, asked)
        flush()
        # the number tells it from whatever else a module writes to a descriptor that is not its own
        send(channel, dict(head, number=request["number"]), body)


# -- training --------------------------------------------------------------------------------------------------------


def wait_for_turn(folder: str, most: int) -> Any:
    """Wait until fewer than so many trainings run; return what holds the place of this one until the process ends."""
    paths = [os.path.join(folder, f".turn-{number}") for number in range(most)]
    is_told = False
    while True:
        for path in paths:
            place = open(path, "wb")  # noqa: SIM115 - held to the end
            try:
                fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return place
            except OSError:
                place.close()
        if not is_told:
            note("waiting until another training has ended\n")
            is_told = True
        time.sleep(0.2)


def train(folder: str, name: str, most: int) -> None:
    """Train, and write down what came of it."""
    turn = wait_for_turn(os.path.dirname(folder), most)
    with open(os.path.join(folder, "training.json"), encoding="utf-8") as file:
        request = json.load(file)
    with open(os.path.join(folder, "body.json"), "rb") as file:
        body = file.read()
    try:
        agent = Agent(entry_points()[name](), name)
        output = agent.module.train(**agent.takes["train"].check(values_of(request, body)))
        outcome = {"status": "done", "output": None}  # type: Dict[str, Any]
        try:
            outcome["output"] = json.loads(to_json(output, "train").decode())
        except Unanswerable as error:
            outcome["message"] = str(error)
    except BaseException as error:  # noqa: BLE001 - whatever a module raises is what came of it
        complain("the training failed")
        told = failure(error)["failed"]
        outcome = {"status": "error", "message": told["message"] or told["type"]}
    flush()
    outcome["finish_date"] = str(datetime.datetime.now())
    path = os.path.join(folder, "outcome.json")
    with open(path + ".part", "w", encoding="utf-8") as file:
        json.dump(outcome, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".part", path)
    fcntl.flock(turn, fcntl.LOCK_UN)  # threads and children that it leaves behind are not to hold up the next one


def main() -> None:
    """Do what the command line says."""
    doing, where = sys.argv[1:3]
    os.dup2(2, 1)  # what a module prints goes into the log, also what its libraries write to descriptor 1
    if doing == "train":
        name, most = sys.argv[3], int(sys.argv[4])
        del sys.argv[1:]
        train(where, name, most)
        return
    channel = socket.socket(fileno=int(where))
    channel.set_inheritable(False)
    if doing == "names":
        send(channel, {"ok": True, "names": sorted(entry_points())})
        return
    name = sys.argv[3]
    del sys.argv[1:]  # modules may read it
    serve(channel, name)


if __name__ == "__main__":
    main()
