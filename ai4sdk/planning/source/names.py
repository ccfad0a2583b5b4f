"""What a dotted name means: followed through imports, star imports, aliases and base classes, from source alone."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ai4sdk.planning.source.modules import Module, ModuleFinder
from ai4sdk.planning.source.text import SourceError, SourceFile, installed_file

__all__ = ["Broken", "Definition", "Lineage", "Opaque", "Resolver", "Thing", "Value", "dotted"]

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda

# Statements that bind names which no parser can see: ``globals()[name] = ...`` and its kin.
_WRITES_NAMES = re.compile(
    r"(?:globals|locals|vars)\(\)\s*(?:\.(?:update|setdefault)\b|\[[^\]\n]*\]\s*=(?!=))"
    r"|=\s*(?:globals|locals|vars)\(\)"
    r"|\bsys\.modules\s*\[\s*__name__\s*\]|^\s*exec\(",
    re.MULTILINE,
)

_ALL = re.compile(r"\b__all__\b")


@dataclass(frozen=True)
class Definition:
    """A class or function as its source defines it.

    Parameters
    ----------
    module
        Module that holds the definition.
    qualname
        Name within the module, such as ``Outer.method``.
    node
        The definition.
    owners
        Classes around it, outermost first.
    certain
        Whether this is surely what runs: not where another branch defines the name too, or something replaces it.
    """

    module: Module
    qualname: str
    node: ast.ClassDef | Function
    owners: tuple[ast.ClassDef, ...] = ()
    certain: bool = True

    @property
    def name(self) -> str:
        """Full dotted name."""
        return f"{self.module.name}.{self.qualname}"


@dataclass(frozen=True)
class Opaque:
    """Something that source cannot show: compiled, made while running, or given by a module's ``__getattr__``."""

    name: str
    module: Module | None = None
    line: int | None = None
    exists: bool = True


@dataclass(frozen=True)
class Value:
    """A plain value, which cannot be called."""

    name: str
    module: Module
    line: int


@dataclass(frozen=True)
class Broken:
    """A name bound by an import that cannot work here."""

    name: str
    module: Module
    line: int
    missing: str


Thing = Definition | Module | Opaque | Value | Broken


@dataclass(frozen=True)
class Lineage:
    """A class and its ancestors in the order Python searches them.

    Parameters
    ----------
    classes
        The class itself, then its ancestors.
    complete
        Whether every base could be found.
    """

    classes: tuple[Definition | Opaque, ...]
    complete: bool


class Resolver:
    """Finds out what names mean. It keeps what it has read: use one for many questions about the same folders.

    Parameters
    ----------
    search
        Folders that come before ``sys.path``: the user's own code.
    """

    def __init__(self, search: Sequence[Path]) -> None:
        self.finder = ModuleFinder(search)
        self._files: dict[Path, SourceFile | None] = {}
        self._memo: dict[tuple[str, str], Thing | None] = {}
        self._active: set[tuple[str, str]] = set()
        self._cycles = 0
        self._lineages: dict[str, Lineage] = {}

    # ------------------------------------------------------------------ dotted names

    def locate(self, target: str) -> Thing | None:
        """Return what a dotted path names, or nothing.

        Raises
        ------
        SourceError
            If a file of the user's on the way is not valid Python.
        """
        top, *rest = target.split(".")
        module = self.finder.find(top)
        return self.descend(module, rest) if module else None

    def descend(self, thing: Thing, parts: Sequence[str]) -> Thing | None:
        """Follow attributes and submodules from a thing."""
        if not parts:
            return thing
        head, rest = parts[0], parts[1:]
        match thing:
            case Module():
                return self._descend_module(thing, head, rest)
            case Definition(node=ast.ClassDef()):
                member = self.member(thing, head)
                return self.descend(member, rest) if member else None
            case Broken():
                return thing
            case Opaque():
                return Opaque(".".join((thing.name, *parts)), thing.module, thing.line, exists=False)
            case Definition() | Value():
                return Opaque(".".join((thing.name, *parts)), thing.module, None, exists=False)

    def _descend_module(self, module: Module, head: str, rest: Sequence[str]) -> Thing | None:
        # A submodule on the way is taken before an attribute of that name: it spares reading the parents.
        submodule = self.finder.find(f"{module.name}.{head}")
        if rest and submodule:
            if module.mine and module.kind == "source":
                self._file(module)  # importing the submodule runs the package first
            if found := self.descend(submodule, rest):
                return found
        attribute = self.attribute(module, head)
        if submodule and (attribute is None or attribute == submodule or _is_guess(attribute)):
            return None if rest else submodule
        return self.descend(attribute, rest) if attribute else None

    def attribute(self, module: Module, name: str) -> Thing | None:
        """Return what a module's own statements bind a name to; a submodule is none of these."""
        key = (module.name, name)
        if key in self._memo:
            return self._memo[key]
        if key in self._active:  # modules that import each other
            self._cycles += 1
            return None
        cycles = self._cycles
        self._active.add(key)
        try:
            found = self._attribute(module, name)
        finally:
            self._active.discard(key)
        if cycles == self._cycles or not self._active:  # what was found inside a circle holds only there
            self._memo[key] = found
        return found

    def _attribute(self, module: Module, name: str) -> Thing | None:
        if module.kind == "namespace":
            return None
        file = self._file(module)
        if file is None:
            if module.name == "builtins":
                return Opaque(f"builtins.{name}") if hasattr(builtins, name) else None
            return Opaque(f"{module.name}.{name}", module, exists=False)
        found = self._bound(module, file.tree(frozenset({name})).body, name)
        if found is None and self._makes_names(module, file, name):
            return Opaque(f"{module.name}.{name}", module, exists=False)
        return found

    def _makes_names(self, module: Module, file: SourceFile, name: str) -> bool:
        return (
            self._has_getattr(file)
            or file.count(_WRITES_NAMES) > 0
            or file.count(re.compile(rf"\bglobal\b[^\n]*\b{re.escape(name)}\b")) > 0
            or any(self._star_is_opaque(module, star) for star in _stars(file.tree(frozenset({name})).body))
        )

    def _has_getattr(self, file: SourceFile) -> bool:
        body = file.tree(frozenset({"__getattr__"})).body
        getters = _flat(body, "__getattr__")
        return any(not isinstance(getter, ast.FunctionDef) or _gives_names(getter) for getter in getters)

    def _star_is_opaque(self, module: Module, star: ast.ImportFrom) -> bool:
        source = self._imported(module, star)
        return source is None or source.kind == "opaque"

    def _file(self, module: Module) -> SourceFile | None:
        if module.kind != "source" or module.file is None:
            return None
        if module.file not in self._files:
            try:
                file = SourceFile(module.file, whole=True) if module.mine else installed_file(module.file)
                file.tree(frozenset({"__all__"}))
            except SourceError:
                if module.mine:
                    raise
                file = None  # an installed file in another Python's syntax
            self._files[module.file] = file
        return self._files[module.file]

    # ------------------------------------------------------------------ statements

    def _bound(
        self, module: Module, body: Sequence[ast.stmt], name: str, owners: tuple[ast.ClassDef, ...] = ()
    ) -> Thing | None:
        """Return what a list of statements leaves a name bound to: the last binding that can be followed."""
        fallback: Thing | None = None
        for statement in reversed(body):
            if isinstance(statement, ast.Delete) and any(_is_name(target, name) for target in statement.targets):
                return fallback
            found = self._binding(module, statement, name, owners)
            if isinstance(found, Definition | Module):
                replaced = isinstance(fallback, Opaque) and fallback.module == module and fallback.exists
                return replace(found, certain=False) if replaced and isinstance(found, Definition) else found
            if isinstance(found, Value):
                return _best([fallback, found])
            # A compiled twin, or a wrapper made by a call: what it replaces says more. So look further up.
            fallback = _best([fallback, found])
        return fallback

    def _binding(self, module: Module, node: ast.stmt, name: str, owners: tuple[ast.ClassDef, ...]) -> Thing | None:
        here = f"{module.name}.{'.'.join([*(owner.name for owner in owners), name])}"
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                if node.name != name or _is_overload(node):
                    return None
                return Definition(module, ".".join([*(owner.name for owner in owners), name]), node, owners)
            case ast.Import():
                return self._plain_import(module, node, name)
            case ast.ImportFrom():
                return self._from_import(module, node, name)
            case ast.Assign() | ast.AnnAssign():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any(_is_name(target, name) for target in targets):
                    return self._assigned(module, node.value, name, owners) if node.value else None
                if any(_is_name(part, name) for target in targets for part in ast.walk(target)):
                    is_tuple = any(isinstance(target, ast.Tuple | ast.List) for target in targets)
                    return Opaque(here, module, node.lineno) if is_tuple else None
            case ast.If():
                return self._conditional(module, node, name, owners)
            case ast.Try() | ast.TryStar():
                return self._attempted(module, node, name, owners)
            case ast.With() | ast.AsyncWith():
                return self._bound(module, node.body, name, owners)
            case ast.For() | ast.While():
                if isinstance(node, ast.For) and any(_is_name(part, name) for part in ast.walk(node.target)):
                    return Opaque(here, module, node.lineno)
                return self._bound(module, [*node.body, *node.orelse], name, owners)
        return None

    def _assigned(self, module: Module, value: ast.expr, name: str, owners: tuple[ast.ClassDef, ...]) -> Thing | None:
        qualname = ".".join([*(owner.name for owner in owners), name])
        if isinstance(value, ast.Lambda):
            return Definition(module, qualname, value, owners)
        if isinstance(value, ast.Constant | ast.List | ast.Dict | ast.Set | ast.Tuple | ast.JoinedStr):
            return Value(f"{module.name}.{qualname}", module, value.lineno)
        found = self.expression(module, value, owners)
        return Opaque(f"{module.name}.{qualname}", module, value.lineno) if found is None else found

    def _attempted(
        self, module: Module, node: ast.Try | ast.TryStar, name: str, owners: tuple[ast.ClassDef, ...]
    ) -> Thing | None:
        """Return what a ``try`` binds a name to: in its body where that can work, else in a handler."""
        first = self._bound(module, [*node.body, *node.orelse, *node.finalbody], name, owners)
        handlers = (self._bound(module, handler.body, name, owners) for handler in node.handlers)
        best = _best([first, *handlers])
        surely = best is first or first is None or isinstance(first, Broken)
        return best if surely or not isinstance(best, Definition) else replace(best, certain=False)

    def _conditional(self, module: Module, node: ast.If, name: str, owners: tuple[ast.ClassDef, ...]) -> Thing | None:
        test = dotted(node.test)
        otherwise = self._bound(module, node.orelse, name, owners)
        if test and test.rpartition(".")[2] == "TYPE_CHECKING":
            if otherwise is not None:
                return otherwise
            # Names that a module shows to type checkers and loads lazily when running.
            file = self._file(module)
            return self._bound(module, node.body, name, owners) if file and self._has_getattr(file) else None
        if isinstance(node.test, ast.Compare) and dotted(node.test.left) == "__name__":
            return otherwise
        found = self._bound(module, node.body, name, owners)
        if isinstance(found, Definition) and isinstance(otherwise, Definition) and found.node is not otherwise.node:
            return replace(found, certain=False)
        return _best([found, otherwise])

    def _plain_import(self, module: Module, node: ast.Import, name: str) -> Thing | None:
        for alias in node.names:
            if (alias.asname or alias.name.partition(".")[0]) == name:
                wanted = alias.name if alias.asname else name
                return self.finder.find(wanted) or Broken(f"{module.name}.{name}", module, node.lineno, wanted)
        return None

    def _from_import(self, module: Module, node: ast.ImportFrom, name: str) -> Thing | None:
        for alias in node.names:
            if alias.name == "*":
                if found := self._star(module, node, name):
                    return found
            elif (alias.asname or alias.name) == name:
                source = self._imported(module, node)
                missing = f"{'.' * node.level}{node.module or ''}"
                if source is None:
                    return Broken(f"{module.name}.{name}", module, node.lineno, missing)
                found = None if source == module else self.attribute(source, alias.name)
                if found is None or _is_guess(found):
                    found = self.finder.find(f"{source.name}.{alias.name}") or found
                if found is None and (source.name, alias.name) in self._active:
                    return None
                missing = f"{missing}.{alias.name}" if node.module else f"{missing}{alias.name}"
                if not module.mine and (found is None or _is_guess(found)):
                    # What an installed package imports is there, however it comes about.
                    return Opaque(f"{source.name}.{alias.name}", source)
                return found or Broken(f"{module.name}.{name}", module, node.lineno, missing)
        return None

    def _imported(self, module: Module, node: ast.ImportFrom) -> Module | None:
        if not node.level:
            return self.finder.find(node.module or "")
        package = module.name.split(".")
        drop = node.level - 1 if module.folders else node.level
        if drop >= len(package):
            return None
        parts = [*package[: len(package) - drop], *(node.module.split(".") if node.module else ())]
        return self.finder.find(".".join(parts))

    def _star(self, module: Module, node: ast.ImportFrom, name: str) -> Thing | None:
        source = self._imported(module, node)
        if source is None or source == module:
            return None
        public = self._all(source)
        if public is None and name.startswith("_"):
            return None
        if public and name not in public:
            return None
        found = self.attribute(source, name)
        return found or (self.finder.find(f"{source.name}.{name}") if public is not None else None)

    def _all(self, module: Module) -> frozenset[str] | None:
        """Return the ``__all__`` of a module: nothing where it has none, empty where it is built while running."""
        file = self._file(module)
        mentions = file.count(_ALL) if file else 0
        if file is None or not mentions:
            return None
        nodes = list(_flat(file.tree(frozenset({"__all__"})).body, "__all__"))
        if mentions > 1 or len(nodes) != 1 or not isinstance(nodes[0], ast.Assign | ast.AnnAssign):
            return frozenset()
        try:
            return frozenset(str(item) for item in ast.literal_eval(nodes[0].value or ast.Constant("")))
        except (ValueError, TypeError):
            return frozenset()

    # ------------------------------------------------------------------ expressions

    def expression(self, module: Module, node: ast.expr, owners: tuple[ast.ClassDef, ...] = ()) -> Thing | None:
        """Return what a name, an attribute or a subscripted generic means in a module or class body."""
        if isinstance(node, ast.Subscript):  # Generic[T] is Generic, but table["name"] may be anything
            found = self.expression(module, node.value, owners)
            return None if isinstance(found, Value) else found
        if isinstance(node, ast.Constant) and isinstance(node.value, str):  # a quoted annotation or base
            return None
        if isinstance(node, ast.IfExp):
            parts = [self.expression(module, part, owners) for part in (node.body, node.orelse)]
            best = _best(parts)
            return replace(best, certain=False) if isinstance(best, Definition) else best
        path = dotted(node)
        if path is None:
            return None
        root, *rest = path.split(".")
        found = self._lookup(module, root, owners)
        return self.descend(found, rest) if found else None

    def _lookup(self, module: Module, name: str, owners: tuple[ast.ClassDef, ...]) -> Thing | None:
        if owners and (found := self._bound(module, owners[-1].body, name, owners)):
            return found
        found = self.attribute(module, name)
        if (found is None or _is_guess(found)) and hasattr(builtins, name):
            return Opaque(f"builtins.{name}")
        return found

    # ------------------------------------------------------------------ classes

    def member(self, owner: Definition, name: str) -> Thing | None:
        """Return what a class or its ancestors bind a name to."""
        lineage = self.lineage(owner)
        for ancestor in lineage.classes:
            if isinstance(ancestor, Opaque):
                if ancestor.name == "builtins.type" or not ancestor.name.startswith("builtins."):
                    return Opaque(f"{ancestor.name}.{name}", ancestor.module, exists=False)
                kind = getattr(builtins, ancestor.name.removeprefix("builtins."), object)
                if hasattr(kind, name) and not hasattr(object, name):
                    return Opaque(f"{ancestor.name}.{name}")
            elif found := self.own_member(ancestor, name):
                return found
        return None if lineage.complete else Opaque(f"{owner.name}.{name}", owner.module, exists=False)

    def own_member(self, owner: Definition, name: str) -> Thing | None:
        """Return what the body of a class binds a name to, without its ancestors."""
        node = self._class_node(owner, name)
        return self._bound(owner.module, node.body, name, (*owner.owners, node))

    def _class_node(self, owner: Definition, member: str | None) -> ast.ClassDef:
        """Return the class with the member that its first reading may have left out, or with all of them."""
        assert isinstance(owner.node, ast.ClassDef)
        file = self._file(owner.module)
        if file is None:
            return owner.node
        top = owner.qualname.partition(".")[0]
        tree = file.tree(frozenset({top, member})) if member else file.full_tree
        same = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.lineno == owner.node.lineno)
        return next(same, owner.node)

    def lineage(self, owner: Definition) -> Lineage:
        """Return a class and its ancestors in Python's method resolution order."""
        if owner.name not in self._lineages:
            self._lineages[owner.name] = Lineage((owner,), False)  # what a cycle of bases sees
            self._lineages[owner.name] = self._lineage(owner)
        return self._lineages[owner.name]

    def _lineage(self, owner: Definition) -> Lineage:
        assert isinstance(owner.node, ast.ClassDef)
        parents: list[list[Definition | Opaque]] = []
        complete = owner.certain
        for base in owner.node.bases:
            match self.expression(owner.module, base, owner.owners):
                case Definition(node=ast.ClassDef()) as found:
                    lineage = self.lineage(found)
                    parents.append(list(lineage.classes))
                    complete = complete and lineage.complete
                case Definition() as found:  # typing.NamedTuple is a function that stands for a base
                    parents.append([Opaque(found.name)])
                case Opaque(name="builtins.object"):
                    pass
                case Opaque() as found if found.name.startswith("builtins."):
                    kind = getattr(builtins, found.name.removeprefix("builtins."), object)
                    known = kind.__mro__[:-1] if isinstance(kind, type) else ()
                    parents.append([Opaque(f"builtins.{one.__name__}") for one in known])
                case Opaque() as found:
                    parents.append([found])
                    complete = False
                case _:
                    complete = False
                    parents.append([Opaque(dotted(base) or ast.unparse(base), exists=False)])
        return Lineage((owner, *_merge(parents)), complete)

    # ------------------------------------------------------------------ what there is

    def names(self, thing: Module | Definition) -> set[str]:
        """Return the names one could write after a module or class, for a spelling hint."""
        if isinstance(thing, Definition):
            classes = [one for one in self.lineage(thing).classes if isinstance(one, Definition)]
            return {name for one in classes for name in _names(self._class_node(one, None).body)}
        return self.finder.children(thing) | self._module_names(thing, set())

    def _module_names(self, module: Module, seen: set[str]) -> set[str]:
        if module.name in seen:
            return set()
        seen.add(module.name)
        if module.name == "builtins":
            return set(vars(builtins))
        file = self._file(module)
        if file is None:
            return set()
        names = set(_names(file.full_tree.body))
        for star in _stars(file.full_tree.body):
            if source := self._imported(module, star):
                names |= self._all(source) or self._module_names(source, seen)
        return names


def dotted(node: ast.expr) -> str | None:
    """Return ``a.b.c`` where an expression is just that."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None


def _is_guess(thing: Thing | None) -> bool:
    """Whether a thing may as well not exist."""
    return isinstance(thing, Opaque) and not thing.exists


def _best(things: Iterable[Thing | None]) -> Thing | None:
    """Return the first of those that say most."""
    return min((thing for thing in things if thing is not None), key=_vagueness, default=None)


def _vagueness(thing: Thing) -> int:
    match thing:
        case Definition() | Module():
            return 0
        case Opaque():
            return 1 if thing.exists else 4
        case Broken():
            return 2
        case Value():
            return 3


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _is_overload(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any((dotted(one) or "").rpartition(".")[2] == "overload" for one in node.decorator_list)


def _merge(parents: Sequence[Sequence[Definition | Opaque]]) -> list[Definition | Opaque]:
    """Merge the ancestors of several bases as Python does (C3), or left to right where that fails."""
    rows = [list(row) for row in parents] + [[row[0] for row in parents if row]]
    merged: list[Definition | Opaque] = []
    while rows := [row for row in rows if row]:
        tails = {one.name for row in rows for one in row[1:]}
        head = next((row[0] for row in rows if row[0].name not in tails), rows[0][0])
        merged.append(head)
        rows = [[one for one in row if one.name != head.name] for row in rows]
    return merged


def _inner_bodies(node: ast.stmt) -> Iterator[list[ast.stmt]]:
    match node:
        case ast.If() | ast.For() | ast.While():
            yield from (node.body, node.orelse)
        case ast.Try() | ast.TryStar():
            yield from (node.body, *(handler.body for handler in node.handlers), node.orelse, node.finalbody)
        case ast.With():
            yield node.body


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a body and of the branches in it, but not those of functions and classes."""
    for node in body:
        yield node
        for inner in _inner_bodies(node):
            yield from _statements(inner)


def _names_bound(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
            yield node.name
        case ast.Import() | ast.ImportFrom():
            yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names if alias.name != "*")
        case ast.Assign():
            yield from (part.id for target in node.targets for part in ast.walk(target) if isinstance(part, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)) | ast.AugAssign(target=ast.Name(id=name)):
            yield name


def _names(body: Sequence[ast.stmt]) -> Iterator[str]:
    for node in _statements(body):
        yield from _names_bound(node)


def _flat(body: Sequence[ast.stmt], name: str) -> Iterator[ast.stmt]:
    """Yield the statements that bind or change a name, wherever they stand outside functions and classes."""
    for node in _statements(body):
        calls = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and dotted(node.value.func)
        if name in _names_bound(node) or (calls and calls.startswith(f"{name}.")):
            yield node


def _stars(body: Sequence[ast.stmt]) -> Iterator[ast.ImportFrom]:
    for node in _statements(body):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            yield node


def _gives_names(getter: ast.FunctionDef) -> bool:
    """Whether a module's ``__getattr__`` can return more than what its globals hold anyway."""
    returned = [node.value for node in ast.walk(getter) if isinstance(node, ast.Return) and node.value is not None]
    return any(
        not (
            isinstance(value, ast.Subscript)
            and isinstance(value.value, ast.Call)
            and dotted(value.value.func) == "globals"
        )
        for value in returned
    )
