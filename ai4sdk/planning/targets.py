"""Proof from source that a ``_target_`` exists and takes the arguments given to it. Nothing is imported.

Importing torch takes seconds and runs the user's code; reading the few files between a dotted path and a signature
takes milliseconds. Where source cannot tell (compiled code, names made while running) the report says so, and nothing
is refused for it.
"""

from __future__ import annotations

import ast
import builtins
import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ai4sdk.planning.source.modules import Module
from ai4sdk.planning.source.names import Broken, Definition, Opaque, Resolver, Thing, Value
from ai4sdk.planning.source.signatures import Parameter, Signature, signature
from ai4sdk.planning.source.text import SourceError, SourceFile

__all__ = [
    "Parameter",
    "TargetProblem",
    "TargetReport",
    "ancestors",
    "check_target",
    "nearest_name",
    "parameters",
]

_DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "lightning": "lightning",
    "monai": "monai",
    "pytorch_lightning": "pytorch-lightning",
    "rasterio": "rasterio",
    "segmentation_models_pytorch": "segmentation-models-pytorch",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "timm": "timm",
    "torchaudio": "torchaudio",
    "torchmetrics": "torchmetrics",
    "torchvision": "torchvision",
    "transformers": "transformers",
    "xarray": "xarray",
    "yaml": "pyyaml",
}
"""What to install for a missing import. Others are not guessed: a wrong guess installs a stranger's code."""


@dataclass(frozen=True)
class TargetProblem:
    """One reason why a target cannot be called as asked.

    Parameters
    ----------
    argument
        The argument it is about: one given that is not taken, or one needed that is missing. Nothing where the target
        itself is at fault.
    message
        What is wrong, in one sentence.
    fix
        What to write instead, or what to do.
    """

    argument: str | None
    message: str
    fix: str | None = None


@dataclass(frozen=True)
class TargetReport:
    """What source shows of a target.

    Parameters
    ----------
    found
        Whether the target exists, or may exist where ``certain`` is false.
    certain
        Whether source shows all there is. Where it does not (compiled code, ``__getattr__``, names made while running,
        decorators that may change a signature), arguments are not judged.
    file, line
        Where it is defined.
    bases
        Full names of all ancestors that can be seen, nearest first.
    kind
        ``class``, ``function``, or ``unknown``.
    problems
        What is wrong; empty where nothing is.
    takes
        Argument → the kind of value it asks for, for those where `Parameter.takes` tells.
    """

    found: bool
    certain: bool
    file: Path | None = None
    line: int | None = None
    bases: tuple[str, ...] = ()
    kind: Literal["class", "function", "unknown"] = "unknown"
    problems: tuple[TargetProblem, ...] = ()
    takes: Mapping[str, str] = field(default_factory=dict)


def check_target(
    target: str,
    arguments: Collection[str],
    search: Sequence[Path],
    *,
    positional: int = 0,
    partial: bool = False,
) -> TargetReport:
    """Check that a target exists and takes what it is given.

    Parameters
    ----------
    target
        Dotted path of a class, a function, or a class or static method.
    arguments
        Names of the arguments given by keyword.
    search
        Folders of the user's code, which come before ``sys.path``.
    positional
        How many arguments are given by position before them.
    partial
        Whether the rest of the arguments is given later, so that none is missing.

    Returns
    -------
    TargetReport
        Where it was found, and every problem.
    """
    if not all(part.isidentifier() for part in target.split(".")):
        return _failure(f"{target!r} is no dotted path of a class or function", "write it as package.module.Class")
    resolver = Resolver(search)
    try:
        thing = resolver.locate(target)
        if isinstance(thing, Definition):
            return _definition_report(resolver, target, thing, arguments, positional, partial)
        return _report(resolver, target, thing)
    except SourceError as error:
        problem = TargetProblem(None, f"{target} cannot be read: {error}", "mend that line")
        return TargetReport(False, True, error.file, error.line, problems=(problem,))


def parameters(target: str, search: Sequence[Path]) -> tuple[Parameter, ...] | None:
    """Return what calling a target takes, or nothing where source cannot tell.

    Parameters
    ----------
    target
        Dotted path of a class or function.
    search
        Folders of the user's code, which come before ``sys.path``.
    """
    resolver = Resolver(search)
    try:
        thing = resolver.locate(target)
        if not isinstance(thing, Definition):
            return None
        found = signature(resolver, thing)
    except SourceError:
        return None
    return found.parameters if found.certain else None


def ancestors(target: str, search: Sequence[Path]) -> tuple[str, ...]:
    """Return the full names of a class's ancestors, nearest first; empty where there are none or it is no class."""
    resolver = Resolver(search)
    try:
        thing = resolver.locate(target)
        return _bases(resolver, thing) if isinstance(thing, Definition) else ()
    except SourceError:
        return ()


def nearest_name(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name that was most likely meant, or nothing.

    Case does not count: ``adamw`` means ``AdamW``.
    """
    by_lower = {one.lower(): one for one in sorted(known, reverse=True)}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[near[0]] if near else None


# ---------------------------------------------------------------------- definitions


def _definition_report(
    resolver: Resolver, target: str, thing: Definition, arguments: Collection[str], positional: int, partial: bool
) -> TargetReport:
    found = signature(resolver, thing)
    problems: tuple[TargetProblem, ...] = ()
    if found.certain and _needs_instance(thing):
        owner = thing.qualname.rpartition(".")[0]
        problems = (
            TargetProblem(
                None,
                f"{target} is a method that needs an instance of {owner}",
                f"name {owner} itself, or a classmethod or staticmethod of it",
            ),
        )
    elif found.certain:
        name = target.rpartition(".")[2]
        problems = tuple(_argument_problems(name, found, arguments, positional, partial))
    return TargetReport(
        found=True,
        certain=found.certain,
        file=thing.module.file,
        line=thing.node.lineno,
        bases=_bases(resolver, thing),
        kind="class" if isinstance(thing.node, ast.ClassDef) else "function",
        problems=problems,
        takes={one.name: one.takes for one in found.parameters if one.takes} if found.certain else {},
    )


def _bases(resolver: Resolver, thing: Definition) -> tuple[str, ...]:
    if not isinstance(thing.node, ast.ClassDef):
        return ()
    return tuple(one.name for one in resolver.lineage(thing).classes if one.name != thing.name)


def _needs_instance(thing: Definition) -> bool:
    return bool(thing.owners) and isinstance(thing.node, ast.FunctionDef) and not thing.node.decorator_list


def _argument_problems(
    name: str, found: Signature, arguments: Collection[str], positional: int, partial: bool
) -> Iterator[TargetProblem]:
    slots = [one.name for one in found.parameters if one.kind in ("positional_only", "positional_or_keyword")]
    by_name = {one.name: one for one in found.parameters if one.kind in ("positional_or_keyword", "keyword_only")}
    kinds = {one.kind for one in found.parameters}
    filled = set(slots[:positional])
    free = [one for one in by_name if one not in filled]
    if positional > len(slots) and "var_positional" not in kinds:
        count = f"{len(slots)} argument{'s' if len(slots) != 1 else ''}" if slots else "no argument"
        yield TargetProblem(None, f"{name} takes {count} by position, not {positional}", _valid(free))
    for argument in arguments:
        if argument in by_name and argument in filled:
            yield TargetProblem(argument, f"{name} gets {argument} by position already", f"leave out {argument}")
        elif argument not in by_name and "var_keyword" not in kinds:
            if argument in slots:
                message, fix = f"{name} takes {argument} only by position", f"give it in _args_: [{argument}]"
                yield TargetProblem(argument, message, fix)
                continue
            near = nearest_name(argument, [one for one in free if one not in arguments])
            meant = f"did you mean {near}? " if near else ""
            yield TargetProblem(argument, f"{name} takes no argument {argument!r}", meant + _valid(free))
    if partial:
        return
    for one in found.parameters:
        if one.required and one.name not in filled and one.name not in arguments:
            given = f"add {one.name}: …" if one.kind != "positional_only" else f"give it in _args_: [{one.name}]"
            yield TargetProblem(one.name, f"{name} needs the argument {one.name!r}", given)


def _valid(names: Sequence[str]) -> str:
    return f"it takes {', '.join(names)}" if names else "it takes no arguments by name"


# ---------------------------------------------------------------------- everything else


def _failure(message: str, fix: str | None, *, certain: bool = True) -> TargetReport:
    return TargetReport(False, certain, problems=(TargetProblem(None, message, fix),))


def _report(resolver: Resolver, target: str, thing: Thing | None) -> TargetReport:
    match thing:
        case None:
            return _missing(resolver, target)
        case Broken():
            message = f"{thing.module.file}:{thing.line} imports {thing.missing}, which cannot be found"
            top = thing.missing.partition(".")[0]
            # A part of a package that is there cannot be mended by installing the package.
            fix = _advice(resolver, top) if top and resolver.finder.find(top) is None else "mend that import"
            return TargetReport(
                False, True, thing.module.file, thing.line, problems=(TargetProblem(None, message, fix),)
            )
        case Module():
            message = f"{target} is a module, not a class or function"
            problem = TargetProblem(None, message, _something_in(resolver, target, thing))
            return TargetReport(True, True, thing.file, problems=(problem,))
        case Value():
            message = f"{target} is a plain value, not a class or function"
            return TargetReport(True, True, thing.module.file, thing.line, problems=(TargetProblem(None, message),))
        case Opaque(name=name) if name.startswith("builtins.") and name.count(".") == 1:
            value = getattr(builtins, name.removeprefix("builtins."))
            if not callable(value):
                return _failure(f"{target} is a plain value, not a class or function", None)
            return TargetReport(True, False, kind="class" if isinstance(value, type) else "function")
        case Opaque():
            file = thing.module.file if thing.module else None
            misspelt = None if thing.exists else _misspelt_package(resolver, target)
            return misspelt or TargetReport(True, False, file, thing.line)
        case Definition():
            raise AssertionError("definitions are reported with their arguments")


def _something_in(resolver: Resolver, target: str, module: Module) -> str:
    classes = sorted(_defined_in(module))
    near = nearest_name(target.rpartition(".")[2], classes)
    if near:
        return f"{target}.{near}"
    return f"name one of {', '.join(classes[:12])}" if classes else f"name a class or function in {target}"


def _defined_in(module: Module) -> set[str]:
    """Return the public classes and functions that a module defines itself."""
    if module.kind != "source" or module.file is None:
        return set()
    try:
        body = SourceFile(module.file, whole=True).full_tree.body
    except SourceError:
        return set()
    return {node.name for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name[0] != "_"}


def _missing(resolver: Resolver, target: str) -> TargetReport:
    parts = target.split(".")
    here: Thing | None = resolver.finder.find(parts[0])
    if here is None:
        return _failure(f"there is no module {parts[0]!r}", _advice(resolver, parts[0], parts[1:]))
    for place, part in enumerate(parts[1:], 1):
        prefix = ".".join(parts[:place])
        found = resolver.descend(here, [part]) if here else None
        if found is None and isinstance(here, Module | Definition):
            return _failure(f"{prefix} has no {part!r}", _other_name(resolver, here, parts, place))
        here = found
    return _failure(f"there is no {target}", None)


def _other_name(resolver: Resolver, here: Module | Definition, parts: Sequence[str], place: int) -> str | None:
    """Return what was most likely meant by one part of a path, as the whole path to write."""
    part, rest = parts[place], parts[place + 1 :]
    names = resolver.names(here)
    if not part.startswith("_"):
        names = {name for name in names if not name.startswith("_")}
    if isinstance(here, Module) and (child := _child_that_defines(resolver, here, part)):
        return ".".join((child, part, *rest))
    if near := nearest_name(part, names):
        return ".".join((*parts[:place], near, *rest))
    own = sorted(_defined_in(here) & names) if isinstance(here, Module) else sorted(names)
    if own:
        return f"it has {', '.join(own[:12])}{', …' if len(own) > 12 else ''}"
    return f"look into {here.file}" if isinstance(here, Module) and here.file else None


def _child_that_defines(resolver: Resolver, module: Module, name: str) -> str | None:
    """Return the direct submodule that defines a name, such as ``torch.optim.lr_scheduler`` for ``StepLR``."""
    pattern = re.compile(rf"^(?:class|def)\s+{name}\b", re.MULTILINE)
    for child in sorted(resolver.finder.children(module)):
        found = resolver.finder.find(f"{module.name}.{child}")
        if found and found.kind == "source" and found.file and not child.startswith("_"):
            try:
                if SourceFile(found.file, whole=False).count(pattern):
                    return found.name
            except SourceError:
                continue
    return None


def _misspelt_package(resolver: Resolver, target: str) -> TargetReport | None:
    """Report ``torch.optm.AdamW``: torch makes names while running, but none so close to a folder of its own."""
    parts = target.split(".")
    for place, part in enumerate(parts[1:-1], 1):
        parent = resolver.finder.find(".".join(parts[:place]))
        if parent is None or not parent.folders:
            return None
        if resolver.finder.find(".".join(parts[: place + 1])) is not None:
            continue
        near = nearest_name(part, resolver.finder.children(parent), cutoff=0.75)
        if near is None or _mentions(parent, part):
            return None
        return _failure(
            f"{parent.name} has no {part!r}", ".".join((*parts[:place], near, *parts[place + 1 :])), certain=False
        )
    return None


def _mentions(module: Module, name: str) -> bool:
    if module.file is None or module.kind != "source":
        return module.kind == "opaque"
    return re.search(rf"\b{name}\b", module.file.read_text(encoding="utf-8", errors="replace")) is not None


def _advice(resolver: Resolver, name: str, rest: Sequence[str] = ()) -> str:
    """Say how to come by a missing top-level module."""
    if near := nearest_name(name, resolver.finder.children(None), cutoff=0.8):
        return ".".join((near, *rest))
    if distribution := _DISTRIBUTIONS.get(name):
        return f"pip install {distribution}"
    folders = ", ".join(str(folder) for folder in resolver.finder.search) or "no folder of yours"
    return f"install the package that brings {name}, or put your own {name} into one of: {folders}"
