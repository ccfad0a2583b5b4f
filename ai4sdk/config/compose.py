"""YAML layers and overrides → one mapping, by Hydra's rules, finding every mistake on the way.

Composing goes on after a mistake: what is wrong is set aside and reported, so that the user sees all of it at once.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.defaults_list import DefaultsList, Overrides, create_defaults_list
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, ListConfig, OmegaConf, flag_override, open_dict
from omegaconf.errors import OmegaConfBaseException

from ai4sdk.config.keys import all_keys, is_known, nearest, nearest_key
from ai4sdk.config.project import Project, display_path, find_project
from ai4sdk.config.repository import Repository
from ai4sdk.config.yaml_files import marks
from ai4sdk.errors import NotFound, Origin, Problem

__all__ = [
    "COMMAND_LINE",
    "Composer",
    "Composition",
    "Layer",
    "apply_override",
    "compose_layers",
    "override_problem",
    "resolve",
]

COMMAND_LINE = "command line"
_MAX_REPAIRS = 200


@dataclass(frozen=True)
class Layer:
    """One file of a composition and where in the config its content goes."""

    path: Path
    package: str
    whose: str


@dataclass(frozen=True)
class Composition:
    """What composing gave.

    Parameters
    ----------
    config
        The config as asked for.
    project
        The project it was composed in.
    values
        The composed mapping, interpolations resolved, references to secrets and data as written.
    layers
        The files it was made of, first loses.
    overrides
        The overrides of values, as typed, in order.
    choices
        Group → option, as chosen.
    problems
        Mistakes found while composing.
    """

    config: str
    project: Project
    values: dict[str, Any]
    layers: tuple[Layer, ...]
    overrides: tuple[Override, ...] = ()
    choices: dict[str, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def compose_layers(config: str, overrides: Sequence[str] = (), project: Project | None = None) -> Composition:
    """Compose a config.

    Parameters
    ----------
    config
        Name of a config on the search path, or path of a YAML file.
    overrides
        Overrides in Hydra's grammar.
    project
        Project to compose in; by default that of the current folder.

    Returns
    -------
    Composition
        The values and all mistakes found.

    Raises
    ------
    NotFound
        If there is no such config.
    """
    return Composer(config, project).compose(overrides)


def _locate(config: str, project: Project) -> tuple[str, list[tuple[str, Path]]]:
    """Return the config's name on the search path, and the search path."""
    folders = project.config_folders()
    path = Path(config)
    if path.suffix in (".yaml", ".yml") or path.is_absolute():
        for candidate in (path, project.root / path):
            if candidate.is_file():
                if candidate.suffix != ".yaml":
                    raise NotFound(f"{config} must end in .yaml", hint=f"mv {config} {path.with_suffix('.yaml')}")
                for _, folder in folders:
                    if candidate.resolve().is_relative_to(folder.resolve()):
                        return str(candidate.resolve().relative_to(folder.resolve()).with_suffix("")), folders
                return candidate.stem, [("the config's folder", candidate.resolve().parent), *folders]
    name = str(path.with_suffix("")) if path.suffix == ".yaml" else config
    if not name or not any((folder / f"{name}.yaml").is_file() for _, folder in folders):
        names = sorted({file.stem for _, folder in folders for file in folder.glob("*.yaml")} - {"base"})
        near = nearest(name, names)
        if (project.root / f"{config}.yaml").is_file():  # beside configs/, and meant by its name
            near = f"{config}.yaml"
        hint = f"config={near}" if near else f"config= one of {', '.join(names)}; or the path of a .yaml file"
        searched = ", ".join(dict.fromkeys(display_path(folder) for _, folder in folders))
        raise NotFound(f"there is no config {config!r} (looked in {searched})", hint=hint)
    return name, folders


class Composer:
    """Composes one config.

    Parameters
    ----------
    config
        Name of a config on the search path, or path of a YAML file.
    project
        Project to compose in; by default that of the current folder.

    Raises
    ------
    NotFound
        If there is no such config.
    """

    def __init__(self, config: str, project: Project | None = None) -> None:
        self.config = config
        self.project = project or find_project()
        self.name, folders = _locate(config, self.project)
        if version.getbase() is None:
            version.setbase("1.3")
        self.repository = Repository(folders)
        self.problems: list[Problem] = []
        self.tree: DictConfig | None = None
        """What was composed last, interpolations as written."""

    def compose(self, texts: Sequence[str]) -> Composition:
        """Compose with overrides; see `compose_layers`."""
        overrides = self._parse(texts)
        defaults = self._defaults_list(overrides)
        if defaults is None:
            return self._result({}, (), overrides, {})
        tree, layers = self._merge(defaults)
        applied = self._apply(tree, defaults.config_overrides)
        self.tree = tree
        values = self._resolve(tree)
        choices = {key: str(value) for key, value in defaults.overrides.known_choices.items() if value is not None}
        return self._result(values, tuple(layers), applied, choices)

    def _result(
        self, values: dict[str, Any], layers: tuple[Layer, ...], overrides: list[Override], choices: dict[str, str]
    ) -> Composition:
        problems = tuple(dict.fromkeys([*self.repository.problems, *self.problems]))
        return Composition(self.config, self.project, values, layers, tuple(overrides), choices, problems)

    def _problem(self, override: str, message: str, key: str = "", fix: str | None = None) -> None:
        self.problems.append(Problem(message, key=key, origin=Origin(COMMAND_LINE, text=override), fix=fix))

    # Overrides

    def _parse(self, texts: Sequence[str]) -> list[Override]:
        parser = OverridesParser.create()
        parsed = []
        for text in texts:
            try:
                override = parser.parse_override(text)
                override.value()
            except (OverrideParseException, HydraException, ValueError, RecursionError) as error:
                self.problems.append(override_problem(text, error))
                continue
            if override.is_sweep_override():
                fix = (
                    f"ai4sdk run -m for a study; a list is written {_as_list(text)}, text with a comma {_quoted(text)}"
                )
                self._problem(text, "several values for one run", key=override.key_or_group, fix=fix)
                continue
            if override.key_or_group.split(".")[0] == "hydra":
                self._problem(
                    text,
                    "hydra.* is not used here: ai4sdk keeps its own runs folder and logs",
                    fix="set runs=FOLDER or log_level=debug instead, or leave it out",
                )
                continue
            try:
                Overrides(repo=self.repository, overrides_list=[override])
            except (HydraException, ValueError) as error:
                group = override.key_or_group
                options = self.repository.get_group_options(group)
                reason = "a group takes the name of an option" if "must be a string" in str(error) else _first(error)
                self._problem(text, reason, key=group, fix=f"{group}= one of {', '.join(options)}")
                continue
            parsed.append(override)
        return parsed

    # Defaults lists

    def _defaults_list(self, overrides: list[Override]) -> DefaultsList | None:
        for _ in range(_MAX_REPAIRS):
            try:
                with warnings.catch_warnings():
                    # Without `_self_` a config's own values come last, which is what people expect.
                    warnings.filterwarnings("ignore", message=".*Defaults list is missing `_self_`")
                    return create_defaults_list(
                        repo=self.repository,
                        config_name=self.name,
                        overrides_list=overrides,
                        prepend_hydra=False,
                        skip_missing=False,
                    )
            except MissingConfigException as error:
                missing = error.missing_cfg_file
                if not missing or missing in self.repository.pretend:
                    self.problems.append(Problem(_first(error)))
                    return None
                self.repository.forget(str(missing), self._missing_option(str(missing), overrides))
            except (HydraException, OmegaConfBaseException, ValueError, AssertionError, RecursionError) as error:
                if not self._set_aside(error, overrides):
                    return None
        return None

    def _missing_option(self, missing: str, overrides: list[Override]) -> str | None:
        """Report an option that does not exist; return the config that was likely meant, to go on with."""
        group, _, option = missing.rpartition("/")
        options = self.repository.get_group_options(group)
        near = nearest(option, options)
        fix: str | None
        meant = f"{group}/{near}".lstrip("/") if near and near != self.name else None
        if not options and group:
            groups = _groups(self.repository)
            near_group = nearest(group, groups)
            message = f"there is no group {group!r}"
            fix = f"{near_group}/{option}" if near_group else f"groups are {', '.join(groups)}"
        else:
            message = f"{group} has no option {option!r}" if group else f"there is no config {option!r}"
            fix = f"{group}={near}" if near and group else near
            if fix is None:
                fix = f"{group}= one of {', '.join(options)}" if group else f"one of {', '.join(options)}"
        for override in overrides:
            values = override.value() if isinstance(override.value(), list) else [override.value()]
            if override.key_or_group == group and option in [str(value) for value in values]:
                self._problem(str(override.input_line), message, key=group, fix=fix)
                return meant
        origin = self._default_entry(group, option)
        if origin and near and group:
            fix = f"{group}: {near}"
        self.problems.append(Problem(message, key=group, origin=origin, fix=fix))
        return meant

    def _default_entry(self, group: str, option: str) -> Origin | None:
        """Find the entry of a defaults list that names an option."""
        for path in self.repository.files.values():
            for key, mark in marks(path).items():
                if not re.fullmatch(r"defaults\.\d+(\..+)?", key):
                    continue
                named = key.split(".", 2)[2].split("@")[0].split()[-1].lstrip("/") if key.count(".") > 1 else ""
                if mark.text in (option, f"{group}/{option}", f"/{group}/{option}") and (
                    not named or group.endswith(named)
                ):
                    return Origin(display_path(path), mark.line, mark.column)
        return None

    def _set_aside(self, error: BaseException, overrides: list[Override]) -> bool:
        """Report why the defaults list could not be made and take the cause out; False if there is no cause to find."""
        text = str(error)
        if match := re.search(r"Could not (?:override|delete) '([^'=]*)", text):
            group = match[1]
            for override in list(overrides):
                if override.get_key_element().lstrip("~+") == group:
                    overrides.remove(override)
                    line = str(override.input_line)
                    if override.is_delete():
                        self._problem(line, f"{group} is not in the defaults list", key=group, fix="leave it out")
                    else:
                        self._problem(
                            line, f"{group} is not in the defaults list of this config", key=group, fix=f"+{line}"
                        )
                    return True
        for config_path, path in list(self.repository.files.items()):
            if re.search(rf"'?\b{re.escape(config_path)}\b'?", text) and config_path not in self.repository.pretend:
                mark = marks(path).get("defaults")
                origin = Origin(display_path(path), mark.line if mark else 1, mark.column if mark else 1)
                self.problems.append(Problem(_first(error), key="defaults", origin=origin))
                if config_path == self.name:
                    return False
                self.repository.forget(config_path)
                return True
        reason = "a config includes itself" if isinstance(error, RecursionError) else _first(error)
        main = self.repository.files.get(self.name)
        self.problems.append(Problem(reason, origin=Origin(display_path(main), 1, 1) if main else None))
        return False

    # Values

    def _merge(self, defaults: DefaultsList) -> tuple[DictConfig, list[Layer]]:
        tree = OmegaConf.create()
        layers = []
        with flag_override(tree, "no_deepcopy_set_nodes", True):
            for default in defaults.defaults:
                path = str(default.config_path)
                loaded = self.repository.load_config(path)
                if loaded is None:
                    continue
                try:
                    package = default.package if default.package is not None else loaded.header["package"]
                    tree.merge_with(ConfigLoaderImpl._embed_result_config(loaded, default.package).config)
                except (OmegaConfBaseException, ValueError, TypeError) as error:
                    self.repository.add_problem(path, "", f"cannot be merged: {_first(error)}")
                    continue
                if path in self.repository.files:
                    layers.append(Layer(self.repository.files[path], package or "", loaded.provider))
        return tree, layers

    def _apply(self, tree: DictConfig, overrides: list[Override]) -> list[Override]:
        """Set the values of overrides; return those that could be set."""
        OmegaConf.set_struct(tree, True)
        applied = []
        for override in overrides:
            key, line = override.key_or_group, str(override.input_line)
            try:
                if (reason := apply_override(tree, override)) is not None:
                    self._problem(line, reason, key=key, fix=line[1:])
                    continue
                applied.append(override)
            except (HydraException, OmegaConfBaseException, ValueError, TypeError, AttributeError, KeyError) as error:
                self._unusable(tree, override, key, line, error)
        return applied

    def _unusable(self, tree: DictConfig, override: Override, key: str, line: str, error: Exception) -> None:
        existing = list(dict.fromkeys([*_keys(tree), *all_keys()]))
        body = line.lstrip("+~")
        if override.package is not None or "@" in key:
            groups = _groups(self.repository)
            near = nearest(key.split("@")[0], groups)
            self._problem(line, f"there is no group {key!r}", key=key, fix=body.replace(key, near, 1) if near else None)
        elif override.is_delete():
            found = nearest_key(key, list(_keys(tree)))
            gone = "does not exist" in str(error)
            message = f"{key} is not in the config" if gone else _first(error)
            self._problem(line, message, key=key, fix=f"~{found}" if gone and found else None)
        elif "Could not override" in str(error):
            found = nearest_key(key, existing)
            fix = f"{found}={body.split('=', 1)[-1]}" if found else f"+{body}"
            if found and _is_argument(tree, key):
                fix += f"   (to add an argument that is not in the config: +{body})"
            self._problem(line, f"there is no key {key!r}", key=key, fix=fix)
        else:
            cause = error.__cause__ or error
            self._problem(line, f"cannot be set: {_first(cause)}", key=key)

    def _resolve(self, tree: DictConfig) -> dict[str, Any]:
        OmegaConf.set_struct(tree, False)
        try:
            return resolve(tree)
        except (OmegaConfBaseException, ValueError, TypeError, RecursionError, KeyError, AttributeError):
            values = self._resolve_one_by_one(tree, tree, "")
        return {str(key): value for key, value in values.items()}

    def _resolve_one_by_one(self, tree: DictConfig, node: Any, prefix: str) -> Any:
        """Resolve each value alone, so that each that cannot be is reported."""
        if isinstance(node, DictConfig | ListConfig):
            names: list[Any] = list(node.keys()) if isinstance(node, DictConfig) else list(range(len(node)))
            resolved: dict[Any, Any] = {}
            for name in names:
                key = f"{prefix}.{name}".lstrip(".")
                try:
                    child: Any = None if OmegaConf.is_missing(node, name) else node[name]
                    if OmegaConf.is_missing(node, name):
                        resolved[name] = "???"
                        continue
                    if OmegaConf.is_interpolation(node, name) and OmegaConf.is_config(child):
                        child = OmegaConf.create(OmegaConf.to_container(child, resolve=True))
                    resolved[name] = self._resolve_one_by_one(tree, child, key)
                except (
                    OmegaConfBaseException,
                    ValueError,
                    TypeError,
                    RecursionError,
                    KeyError,
                    AttributeError,
                ) as error:
                    self._bad_interpolation(tree, key, error)
                    resolved[name] = None
            return resolved if isinstance(node, DictConfig) else list(resolved.values())
        return node

    def _bad_interpolation(self, tree: DictConfig, key: str, error: BaseException) -> None:
        raw = OmegaConf.to_container(tree, resolve=False)
        text = raw
        for part in key.split("."):
            if isinstance(text, dict):
                text = text.get(part, text.get(int(part)) if part.isdecimal() else None)
            elif isinstance(text, list) and part.isdecimal() and int(part) < len(text):
                text = text[int(part)]
        reason, fix = _interpolation_mistake(str(text), error, list(_keys(tree)))
        self.problems.append(Problem(reason, key=key, fix=fix))


def apply_override(tree: DictConfig, override: Override) -> str | None:
    """Set a value in a composed tree, as Hydra does; keys that the models name need no ``+``.

    Returns
    -------
    str or None
        Why the override is not meant so, if it is a ``+`` for something that is there.

    Raises
    ------
    HydraException, OmegaConfBaseException, ValueError, TypeError, AttributeError, KeyError
        If it cannot be set.
    """
    key = override.key_or_group
    if override.is_add() and _stands(tree, key) and not isinstance(override.value(), dict | list):
        return f"{key} is in the config already"
    plain = not (override.is_add() or override.is_force_add() or override.is_delete())
    if plain and override.package is None and is_known(key):
        with open_dict(tree):
            OmegaConf.update(tree, key, override.value(), merge=True, force_add=True)
    else:
        ConfigLoaderImpl._apply_overrides_to_config([override], tree)
    return None


def resolve(tree: DictConfig) -> dict[str, Any]:
    """Return a composed tree as plain values, interpolations resolved, references to secrets and data as written."""
    _register_references()
    values = OmegaConf.to_container(tree, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _interpolation_mistake(text: str, error: BaseException, existing: list[str]) -> tuple[str, str | None]:
    message = str(error)
    if match := re.search(r"Interpolation key '([^']*)' not found", message):
        near = nearest_key(match[1].lstrip("."), existing)
        return f"{text} refers to {match[1]!r}, which is not in the config", f"${{{near}}}" if near else None
    if match := re.search(r"Environment variable '([^']*)' not found", message):
        return (
            f"{text} needs the environment variable {match[1]}",
            f"export {match[1]}=…, or give a default: ${{oc.env:{match[1]},default}}",
        )
    if match := re.search(r"Unsupported interpolation type (\S+)", message):
        known = ["oc.env", "oc.select", "oc.decode", "oc.create", "oc.dict.keys", "oc.dict.values", "secret", "data"]
        near = nearest(match[1], known)
        hint = near or "one of " + ", ".join(known)
        return f"{text} uses the unknown resolver {match[1]!r}", f"${{{hint}:…}}" if near else hint
    if isinstance(error, RecursionError) or "ecursi" in message:
        return f"{text} refers to itself", "break the circle of references"
    return f"{text} cannot be resolved: {_first(error)}", None


def _register_references() -> None:
    """Let references to secrets and to the data's summary through as they are written; planning fills them in."""
    for name in ("secret", "data"):
        if not OmegaConf.has_resolver(name):
            OmegaConf.register_new_resolver(name, _reference(name))


def _reference(name: str) -> Any:
    return lambda what: f"${{{name}:{what}}}"


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing() and not node._is_interpolation():
        for name in map(str, node):
            key = f"{prefix}{name}"
            yield key
            yield from _keys(node._get_node(name), f"{key}.")


def _stands(tree: DictConfig, key: str) -> bool:
    """Tell whether a key is in the config, without resolving anything."""
    node: Any = tree
    for part in key.split("."):
        if not isinstance(node, DictConfig) or node._is_none() or node._is_interpolation() or part not in list(node):
            return False
        node = node._get_node(part)
    return node is not None and not node._is_none()


def _is_argument(tree: DictConfig, key: str) -> bool:
    parent = OmegaConf.select(tree, key.rpartition(".")[0]) if "." in key else None
    return isinstance(parent, DictConfig) and "_target_" in parent


def _groups(repository: Repository) -> list[str]:
    found = {
        entry.name
        for _, folder in repository.folders
        for entry in folder.iterdir()
        if entry.is_dir() and any(entry.glob("*.yaml"))
    }
    return sorted(found)


def _first(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def override_problem(text: str, error: Exception) -> Problem:
    """Say what is wrong with an override that cannot be read."""
    return Problem(_override_mistake(text, str(error)), origin=Origin(COMMAND_LINE, text=text), fix=_quoted(text))


def _override_mistake(text: str, message: str) -> str:
    if "=" not in text and not text.startswith("~"):
        return "an override is written KEY=VALUE"
    reason = _first(ValueError(message)).replace("LexerNoViableAltException: ", "unexpected end in ")
    return f"not readable as an override: {reason}"


def _quoted(text: str) -> str | None:
    key, equals, value = text.partition("=")
    if not equals:
        return f"{text}=VALUE"
    if not re.fullmatch(r"[+~]*[\w./@:\-]+", key):
        return None
    inner = value.strip("'\"").replace("\\", "\\\\").replace("'", "\\'")
    return f"\"{key}='{inner}'\"   (quotes keep the text as it is)"


def _as_list(text: str) -> str:
    key, _, value = text.partition("=")
    return f"'{key}=[{value}]'"
