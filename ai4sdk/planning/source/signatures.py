"""What a call takes, from the source of a function or of a class and its ancestors."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ai4sdk.planning.source.names import Definition, Opaque, Resolver, dotted

__all__ = ["Parameter", "Signature", "signature"]

ParameterKind = Literal["positional_only", "positional_or_keyword", "keyword_only", "var_positional", "var_keyword"]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a call.

    Parameters
    ----------
    name
        Its name, without stars.
    required
        Whether a call without it fails.
    kind
        How it can be given; ``var_keyword`` stands for any further name.
    takes
        ``a number``, ``a whole number`` or ``true or false`` where its annotation names nothing else that could be
        written in YAML; ``None`` where it takes anything, or cannot be told.
    """

    name: str
    required: bool
    kind: ParameterKind
    takes: str | None = None


@dataclass(frozen=True)
class Signature:
    """The parameters of a call, and whether source shows all there is to know about them."""

    parameters: tuple[Parameter, ...]
    certain: bool = True


_ANYTHING = Signature(
    (Parameter("args", False, "var_positional"), Parameter("kwargs", False, "var_keyword")), certain=False
)
_NOTHING = Signature(())

# Decorators that leave what a call takes as it is.
_HARMLESS = frozenset(
    {
        "abc.abstractmethod",
        "builtins.classmethod",
        "builtins.staticmethod",
        "contextlib.asynccontextmanager",
        "contextlib.contextmanager",
        "functools.cache",
        "functools.lru_cache",
        "functools.singledispatch",
        "functools.total_ordering",
        "functools.wraps",
        "torch.autograd.grad_mode.enable_grad",
        "torch.autograd.grad_mode.inference_mode",
        "torch.autograd.grad_mode.no_grad",
        *(
            f"{module}.{name}"
            for module in ("typing", "typing_extensions", "warnings")
            for name in ("deprecated", "final", "no_type_check", "override", "runtime_checkable")
        ),
    }
)
_DATACLASS = frozenset({"dataclasses.dataclass", "pydantic.dataclasses.dataclass"})
_PYDANTIC = frozenset({"pydantic.main.BaseModel", "pydantic.v1.main.BaseModel"})
# Models whose fields can be given otherwise than by name.
_PYDANTIC_SPECIAL = frozenset({"pydantic.root_model.RootModel", "pydantic_settings.main.BaseSettings"})
# torch's Module takes *args and **kwargs to refuse them with a message of its own.
_TAKE_NOTHING = frozenset({"builtins.object", "torch.nn.modules.module.Module"})


def signature(resolver: Resolver, thing: Definition) -> Signature:
    """Return what calling a class or function takes.

    Parameters
    ----------
    resolver
        Where names are looked up.
    thing
        The class or function. A method is taken as reached through its class.

    Returns
    -------
    Signature
        Parameters without ``self`` or ``cls`` where Python fills them in; ``certain`` is false where a decorator, a
        metaclass or an unreadable ancestor may change them.
    """
    if isinstance(thing.node, ast.ClassDef):
        return _Constructor(resolver, thing).signature()
    found = _of_function(resolver, thing)
    return replace(found, certain=found.certain and thing.certain)


def _of_function(resolver: Resolver, thing: Definition) -> Signature:
    assert not isinstance(thing.node, ast.ClassDef)
    parameters = _parameters(thing.node.args)
    if isinstance(thing.node, ast.Lambda):
        return Signature(tuple(parameters))
    certain = all(_is_harmless(resolver, thing, decorator) for decorator in thing.node.decorator_list)
    if thing.owners and _decorated(thing.node, "classmethod"):
        parameters = _without_first(parameters)
    return Signature(tuple(parameters), certain)


def _parameters(arguments: ast.arguments) -> list[Parameter]:
    positional = [*arguments.posonlyargs, *arguments.args]
    optional_from = len(positional) - len(arguments.defaults)
    defaults = [*([None] * optional_from), *arguments.defaults]
    parameters = [
        Parameter(
            argument.arg,
            place < optional_from,
            "positional_only" if place < len(arguments.posonlyargs) else "positional_or_keyword",
            _takes(argument.annotation, default),
        )
        for place, (argument, default) in enumerate(zip(positional, defaults, strict=True))
    ]
    if arguments.vararg:
        parameters.append(Parameter(arguments.vararg.arg, False, "var_positional"))
    parameters += [
        Parameter(argument.arg, default is None, "keyword_only", _takes(argument.annotation, default))
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    if arguments.kwarg:
        parameters.append(Parameter(arguments.kwarg.arg, False, "var_keyword"))
    return parameters


_KINDS = {"float": "a number", "complex": "a number", "int": "a whole number", "bool": "true or false"}
# What cannot be written in YAML, except as a mapping with a target of its own.
_NEVER_PLAIN = frozenset({"None", "Tensor", "Parameter", "ndarray"})


def _takes(annotation: ast.expr | None, default: ast.expr | None) -> str | None:
    """Say what kind of plain value an annotation asks for, where it is one only; see `Parameter`."""
    if isinstance(default, ast.Constant) and isinstance(default.value, str):
        return None  # a default of another kind shows that the annotation does not say all
    names = set(_alternatives(annotation)) if annotation is not None else {"?"}
    kinds = [kind for name, kind in _KINDS.items() if name in names]
    return kinds[0] if kinds and names <= {*_KINDS, *_NEVER_PLAIN} else None


def _alternatives(annotation: ast.expr) -> Iterator[str]:
    """Yield the names of the types that an annotation allows; ``?`` for what is not understood."""
    match annotation:
        case ast.BinOp(op=ast.BitOr()):
            yield from _alternatives(annotation.left)
            yield from _alternatives(annotation.right)
        case ast.Subscript(value=ast.Name() | ast.Attribute(), slice=inner):
            name = (dotted(annotation.value) or "?").rpartition(".")[2]
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            if name not in ("Optional", "Union"):
                yield "?"
            for part in parts:
                yield from _alternatives(part)
        case ast.Constant(value=None):
            yield "None"
        case ast.Constant(value=str(text)):
            try:
                yield from _alternatives(ast.parse(text, mode="eval").body)
            except (SyntaxError, ValueError):
                yield "?"
        case _:
            yield (dotted(annotation) or "?").rpartition(".")[2]


def _without_first(parameters: Sequence[Parameter]) -> list[Parameter]:
    takes_place = bool(parameters) and parameters[0].kind in ("positional_only", "positional_or_keyword")
    return list(parameters[1:] if takes_place else parameters)


def _decorated(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> bool:
    return any((dotted(one) or "").rpartition(".")[2] == name for one in node.decorator_list)


# ---------------------------------------------------------------------- classes


class _Constructor:
    """Follows the constructor of one class through its ancestors."""

    def __init__(self, resolver: Resolver, owner: Definition) -> None:
        self.resolver = resolver
        self.owner = owner
        self.lineage = resolver.lineage(owner)

    def signature(self) -> Signature:
        found = self._from(0)
        return replace(found, certain=found.certain and self.owner.certain and not self._call_is_changed())

    def _from(self, start: int) -> Signature:
        """Return what the constructor takes that Python finds first from a place in the lineage on."""
        for place, ancestor in enumerate(self.lineage.classes[start:], start):
            if ancestor.name in _TAKE_NOTHING:
                return _NOTHING
            if isinstance(ancestor, Opaque):
                return self._of_opaque(ancestor, place)
            if found := self._of_class(ancestor, place):
                return found
        return _NOTHING if self.lineage.complete else _ANYTHING

    def _of_opaque(self, ancestor: Opaque, place: int) -> Signature:
        if ancestor.name == "typing.NamedTuple":
            return Signature(tuple(_named_tuple_fields(self.lineage.classes[:place])))
        return _ANYTHING

    def _of_class(self, ancestor: Definition, place: int) -> Signature | None:
        assert isinstance(ancestor.node, ast.ClassDef)
        for name in ("__init__", "__new__"):
            match self.resolver.own_member(ancestor, name):
                case Definition(node=ast.FunctionDef()) as method:
                    if name == "__new__" or not self._passes_all(ancestor, method):
                        return self._of_method(method, place)
                case None:
                    pass
                case _:
                    return _ANYTHING
        names = {one.name for one in self.lineage.classes[place:]}
        if names & _PYDANTIC:
            found = self._pydantic(place)
            return replace(found, certain=False) if names & _PYDANTIC_SPECIAL else found
        decorator = self._dataclass_decorator(ancestor)
        if decorator is not None and _keyword(decorator, "init") is not False:
            return Signature(tuple(self._dataclass_fields(place)))
        return None

    def _passes_all(self, ancestor: Definition, init: Definition) -> bool:
        """Whether ``__init__`` takes anything and the real parameters are those of ``__new__`` beside it."""
        assert isinstance(init.node, ast.FunctionDef)
        arguments = init.node.args
        takes_anything = arguments.vararg and arguments.kwarg and len(arguments.args) + len(arguments.posonlyargs) == 1
        return bool(takes_anything) and self.resolver.own_member(ancestor, "__new__") is not None

    # -- __init__ and __new__, and what they hand on

    def _of_method(self, method: Definition, place: int) -> Signature:
        assert isinstance(method.node, ast.FunctionDef)
        own = _without_first(_parameters(method.node.args))
        certain = method.certain and all(
            _is_harmless(self.resolver, method, decorator) for decorator in method.node.decorator_list
        )
        rest, keywords = method.node.args.vararg, method.node.args.kwarg
        handed = _handed_on(method.node) if rest or keywords else None
        if handed is None:
            return Signature(tuple(own), certain)
        parent = self._from(place + 1)
        return Signature(tuple(_joined(own, parent.parameters, handed)), certain and parent.certain)

    # -- dataclasses, named tuples, pydantic models

    def _dataclass_decorator(self, ancestor: Definition) -> ast.expr | None:
        assert isinstance(ancestor.node, ast.ClassDef)
        for decorator in ancestor.node.decorator_list:
            if _decorator_name(self.resolver, ancestor, decorator) in _DATACLASS:
                return decorator
        return None

    def _dataclass_fields(self, place: int) -> Iterator[Parameter]:
        fields: dict[str, Parameter | None] = {}
        for ancestor in reversed(self.lineage.classes[place:]):
            if isinstance(ancestor, Opaque):
                continue
            assert isinstance(ancestor.node, ast.ClassDef)
            decorator = self._dataclass_decorator(ancestor)
            if decorator is None:
                continue
            kind: ParameterKind = "keyword_only" if _keyword(decorator, "kw_only") else "positional_or_keyword"
            for name, annotation, value in _annotated(ancestor.node.body):
                if _annotation_name(annotation) == "KW_ONLY":
                    kind = "keyword_only"
                elif _annotation_name(annotation) != "ClassVar":
                    fields[name] = _dataclass_field(name, value, kind)
        # Python moves the keyword-only ones to the end.
        present = [field for field in fields.values() if field]
        yield from sorted(present, key=lambda field: field.kind == "keyword_only")

    def _pydantic(self, place: int) -> Signature:
        fields: dict[str, Parameter] = {}
        certain, extra = True, "ignore"
        for ancestor in reversed(self.lineage.classes[place:]):
            if isinstance(ancestor, Opaque) or ancestor.name in _PYDANTIC | {"typing.Generic"}:
                continue
            assert isinstance(ancestor.node, ast.ClassDef)
            extra = _extra(ancestor.node) or extra
            if "alias" in _config_source(ancestor.node):
                certain = False
            for name, annotation, value in _annotated(ancestor.node.body):
                if name.startswith("_") or name == "model_config" or _annotation_name(annotation) == "ClassVar":
                    continue
                setting = _field_call(value) or _field_in_annotation(annotation)
                if setting and any("alias" in (keyword.arg or "") for keyword in setting.keywords):
                    certain = False
                fields[name] = Parameter(name, _pydantic_required(value, setting), "keyword_only")
        parameters = list(fields.values())
        if extra == "allow":
            parameters.append(Parameter("extra", False, "var_keyword"))
        return Signature(tuple(parameters), certain)

    # -- what can change a call from outside

    def _call_is_changed(self) -> bool:
        """Whether a class decorator or a metaclass may change what the constructor takes."""
        for place, ancestor in enumerate(self.lineage.classes):
            if isinstance(ancestor, Opaque):
                continue
            assert isinstance(ancestor.node, ast.ClassDef)
            if ancestor.name in _PYDANTIC:
                return False
            decorators = ancestor.node.decorator_list if place == 0 else []
            if not all(self._leaves_class(ancestor, decorator) for decorator in decorators):
                return True
            metaclass = next((one.value for one in ancestor.node.keywords if one.arg == "metaclass"), None)
            if metaclass is not None and self._metaclass_calls(ancestor, metaclass):
                return True
        return False

    def _leaves_class(self, ancestor: Definition, decorator: ast.expr) -> bool:
        name = _decorator_name(self.resolver, ancestor, decorator)
        return name in _DATACLASS or _is_harmless(self.resolver, ancestor, decorator)

    def _metaclass_calls(self, ancestor: Definition, metaclass: ast.expr) -> bool:
        match self.resolver.expression(ancestor.module, metaclass, ancestor.owners):
            case Opaque(name="builtins.type"):
                return False
            case Definition(node=ast.ClassDef()) as found:
                classes = self.resolver.lineage(found).classes
                known = all(isinstance(one, Definition) or one.name == "builtins.type" for one in classes)
                own = (one for one in classes if isinstance(one, Definition))
                return not known or any(self.resolver.own_member(one, "__call__") is not None for one in own)
            case _:
                return True


@dataclass(frozen=True)
class _HandedOn:
    """How a constructor hands its own ``*args`` and ``**kwargs`` to the next one."""

    positional: int
    names: frozenset[str]
    rest: bool
    keywords: bool
    popped: frozenset[str]
    filled: bool


def _handed_on(method: ast.FunctionDef) -> _HandedOn | None:
    """Return what ``super().__init__(...)`` gets of the starred arguments, or nothing where they go elsewhere."""
    rest = method.args.vararg.arg if method.args.vararg else None
    keywords = method.args.kwarg.arg if method.args.kwarg else None
    calls = [node for node in ast.walk(method) if isinstance(node, ast.Call) and _is_super_call(node, method.name)]
    if len(calls) != 1:
        return None
    call = calls[0]
    given = call.args[1:] if method.name == "__new__" else call.args
    passes_rest = any(isinstance(one, ast.Starred) and _named(one.value, rest) for one in given)
    passes_keywords = any(one.arg is None and _named(one.value, keywords) for one in call.keywords)
    if not (passes_rest or passes_keywords):
        return None
    uses = _Uses(keywords) if keywords else None
    if uses and not uses.read(method, call):
        return None
    return _HandedOn(
        positional=sum(not isinstance(one, ast.Starred) for one in given),
        names=frozenset(one.arg for one in call.keywords if one.arg),
        rest=passes_rest,
        keywords=passes_keywords,
        popped=frozenset(uses.popped) if uses else frozenset(),
        filled=bool(uses and uses.filled)
        or any(isinstance(one, ast.Starred) and not _named(one.value, rest) for one in given),
    )


def _is_super_call(node: ast.Call, method: str) -> bool:
    function = node.func
    return (
        isinstance(function, ast.Attribute)
        and function.attr == method
        and isinstance(function.value, ast.Call)
        and dotted(function.value.func) == "super"
    )


def _named(node: ast.expr, name: str | None) -> bool:
    return isinstance(node, ast.Name) and node.id == name


class _Uses:
    """What a constructor does with its ``**kwargs`` beside handing them on."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.popped: set[str] = set()
        self.filled = False

    def read(self, method: ast.FunctionDef, call: ast.Call) -> bool:
        """Return whether every use is one that is understood."""
        understood = {id(one.value) for one in call.keywords if one.arg is None}
        for node in ast.walk(method):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id=self.name) as use, attr=attribute), args=[first, *_]
                ):
                    if attribute in ("pop", "get", "setdefault") and isinstance(key := first, ast.Constant):
                        self._mark(str(key.value), popped=attribute != "setdefault", filled=attribute == "setdefault")
                        understood.add(id(use))
                case ast.Subscript(value=ast.Name(id=self.name) as use, slice=ast.Constant(value=key), ctx=context):
                    is_store = isinstance(context, ast.Store)
                    self._mark(str(key), popped=not is_store, filled=is_store)
                    understood.add(id(use))
                case ast.Compare(
                    left=ast.Constant(value=key), ops=[ast.In() | ast.NotIn()], comparators=[ast.Name() as use]
                ):
                    if use.id == self.name:
                        self._mark(str(key), popped=True, filled=False)
                        understood.add(id(use))
        uses = [node for node in ast.walk(method) if isinstance(node, ast.Name) and node.id == self.name]
        return all(id(use) in understood for use in uses)

    def _mark(self, key: str, *, popped: bool, filled: bool) -> None:
        if popped:
            self.popped.add(key)
        self.filled = self.filled or filled


def _joined(own: Sequence[Parameter], parent: Sequence[Parameter], handed: _HandedOn) -> Iterator[Parameter]:
    """Yield a constructor's own parameters and those of its parent that can be given through it."""
    names = {one.name for one in own} | handed.names
    own_positional = [one for one in own if one.kind in ("positional_only", "positional_or_keyword")]
    own_keywords = [one for one in own if one.kind == "keyword_only"]
    inherited: list[Parameter] = []
    left = handed.positional
    for one in parent:
        if one.kind in ("positional_only", "positional_or_keyword") and left > 0:
            left -= 1
        elif one.name not in names or one.kind in ("var_positional", "var_keyword"):
            inherited += _through(one, handed)
    yield from own_positional
    yield from (one for one in inherited if one.kind in ("positional_only", "positional_or_keyword"))
    yield from (one for one in own if one.kind == "var_positional" and not handed.rest)
    yield from (one for one in inherited if one.kind == "var_positional")
    yield from own_keywords
    yield from (one for one in inherited if one.kind == "keyword_only")
    known = names | {one.name for one in inherited}
    yield from (Parameter(name, False, "keyword_only") for name in sorted(handed.popped - known))
    yield from (one for one in own if one.kind == "var_keyword" and not handed.keywords)
    yield from (one for one in inherited if one.kind == "var_keyword")


def _through(one: Parameter, handed: _HandedOn) -> Iterator[Parameter]:
    required = one.required and not handed.filled
    match one.kind:
        case "positional_or_keyword" if handed.rest and handed.keywords:
            yield replace(one, required=required)
        case "positional_or_keyword" if handed.keywords:
            yield replace(one, required=required, kind="keyword_only")
        case "positional_or_keyword" | "positional_only" if handed.rest:
            yield replace(one, required=required, kind="positional_only")
        case "keyword_only" if handed.keywords:
            yield replace(one, required=required)
        case "var_positional" if handed.rest:
            yield one
        case "var_keyword" if handed.keywords:
            yield one


# ---------------------------------------------------------------------- fields


def _annotated(body: Sequence[ast.stmt]) -> Iterator[tuple[str, ast.expr, ast.expr | None]]:
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node.annotation, node.value


def _annotation_name(annotation: ast.expr) -> str:
    """Return the last name of ``typing.ClassVar[int]``, quoted or not."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return annotation.value.partition("[")[0].rpartition(".")[2].strip()
    node = annotation.value if isinstance(annotation, ast.Subscript) else annotation
    return (dotted(node) or "").rpartition(".")[2]


def _field_call(value: ast.expr | None) -> ast.Call | None:
    if isinstance(value, ast.Call) and (dotted(value.func) or "").rpartition(".")[2] in ("field", "Field"):
        return value
    return None


def _field_in_annotation(annotation: ast.expr) -> ast.Call | None:
    if _annotation_name(annotation) != "Annotated" or not isinstance(annotation, ast.Subscript):
        return None
    parts = annotation.slice.elts[1:] if isinstance(annotation.slice, ast.Tuple) else []
    return next((call for part in parts if (call := _field_call(part))), None)


def _keyword(call: ast.expr, name: str) -> object:
    """Return the literal that a call gives a keyword, or nothing."""
    keywords = call.keywords if isinstance(call, ast.Call) else []
    return next((one.value.value for one in keywords if one.arg == name and isinstance(one.value, ast.Constant)), None)


def _has_keyword(call: ast.Call, *names: str) -> bool:
    return any(keyword.arg in names for keyword in call.keywords)


def _dataclass_field(name: str, value: ast.expr | None, kind: ParameterKind) -> Parameter | None:
    setting = _field_call(value)
    if setting is None:
        return Parameter(name, value is None, kind)
    if _keyword(setting, "init") is False:
        return None
    if (keyword_only := _keyword(setting, "kw_only")) is not None:
        kind = "keyword_only" if keyword_only else "positional_or_keyword"
    has_default = bool(setting.args) or _has_keyword(setting, "default", "default_factory", "factory")
    return Parameter(name, not has_default, kind)


def _pydantic_required(value: ast.expr | None, setting: ast.Call | None) -> bool:
    if value is not None and _field_call(value) is None:
        return _is_ellipsis(value)
    if setting is None:
        return True
    if setting.args:
        return _is_ellipsis(setting.args[0])
    default = next((one.value for one in setting.keywords if one.arg == "default"), None)
    if default is not None:
        return _is_ellipsis(default)
    return not _has_keyword(setting, "default_factory")


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is Ellipsis


def _config_nodes(node: ast.ClassDef) -> Iterator[ast.AST]:
    yield from node.keywords
    for statement in node.body:
        if isinstance(statement, ast.ClassDef) and statement.name == "Config":
            yield statement
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            if any(_named(target, "model_config") for target in targets):
                yield statement


def _config_source(node: ast.ClassDef) -> str:
    return " ".join(ast.unparse(part) for part in _config_nodes(node))


def _extra(node: ast.ClassDef) -> str | None:
    """Return how a pydantic model's own config treats unknown names."""
    source = _config_source(node)
    return next((word for word in ("allow", "forbid", "ignore") if "extra" in source and word in source), None)


def _named_tuple_fields(classes: Iterable[Definition | Opaque]) -> Iterator[Parameter]:
    last = [one for one in classes if isinstance(one, Definition)][-1]
    assert isinstance(last.node, ast.ClassDef)
    for name, _, value in _annotated(last.node.body):
        yield Parameter(name, value is None, "positional_or_keyword")


# ---------------------------------------------------------------------- decorators


def _decorator_name(resolver: Resolver, thing: Definition, decorator: ast.expr) -> str | None:
    node = decorator.func if isinstance(decorator, ast.Call) else decorator
    found = resolver.expression(thing.module, node, thing.owners)
    return found.name if isinstance(found, Definition | Opaque) else None


def _is_harmless(resolver: Resolver, thing: Definition, decorator: ast.expr) -> bool:
    """Whether a decorator leaves what a call takes as it is: by its name, or by what its source returns."""
    node = decorator.func if isinstance(decorator, ast.Call) else decorator
    found = resolver.expression(thing.module, node, thing.owners)
    if isinstance(found, Definition | Opaque) and found.name in _HARMLESS:
        return True
    if not isinstance(found, Definition) or not isinstance(found.node, ast.FunctionDef):
        return False
    makers = _inner_functions(found.node)
    if not isinstance(decorator, ast.Call):
        return _returns_argument(found.node)
    returned = [dotted(value) for value in _returned(found.node)]
    return bool(returned) and all(name in makers and _returns_argument(makers[name]) for name in returned)


def _inner_functions(function: ast.FunctionDef) -> dict[str | None, ast.FunctionDef]:
    return {node.name: node for node in function.body if isinstance(node, ast.FunctionDef)}


def _own_statements(body: Sequence[ast.stmt]) -> Iterator[ast.AST]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        yield node
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt | ast.ExceptHandler):
                yield from _own_statements([child])  # type: ignore[list-item]


def _returned(function: ast.FunctionDef) -> list[ast.expr]:
    return [node.value for node in _own_statements(function.body) if isinstance(node, ast.Return) and node.value]


def _returns_argument(function: ast.FunctionDef) -> bool:
    """Whether a decorator returns what it was given, or a ``functools.wraps`` of it that takes anything."""
    arguments = [*function.args.posonlyargs, *function.args.args]
    if not arguments:
        return False
    inner = _inner_functions(function)
    returned = _returned(function)

    def is_same(value: ast.expr) -> bool:
        if isinstance(value, ast.Call) and (dotted(value.func) or "").rpartition(".")[2] == "cast" and value.args:
            return is_same(value.args[-1])
        name = dotted(value)
        return name == arguments[0].arg or (name in inner and _wraps(inner[name]))

    return bool(returned) and all(is_same(value) for value in returned)


def _wraps(wrapper: ast.FunctionDef) -> bool:
    wrapped = any(
        isinstance(one, ast.Call) and (dotted(one.func) or "").rpartition(".")[2] == "wraps"
        for one in wrapper.decorator_list
    )
    return wrapped and wrapper.args.vararg is not None and wrapper.args.kwarg is not None
