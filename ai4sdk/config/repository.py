"""Hydra's view of the search path, reading with our loader and keeping what went wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hydra._internal.config_repository import ConfigRepository
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ai4sdk.config.project import display_path
from ai4sdk.config.yaml_files import YamlMistake, marks, parse_yaml
from ai4sdk.errors import Origin, Problem

__all__ = ["Repository"]


class Repository(ConfigRepository):  # type: ignore[misc]
    """The configs on a search path.

    A file that cannot be read counts as empty, and what is wrong with it is kept in ``problems``, so that composing
    goes on and finds the other mistakes.

    Parameters
    ----------
    folders
        (whose, folder) pairs, first wins.
    """

    def __init__(self, folders: list[tuple[str, Path]]) -> None:
        self.folders = folders
        self.problems: list[Problem] = []
        self.files: dict[str, Path] = {}
        self.pretend: dict[str, str | None] = {}
        self._loaded: dict[str, ConfigResult | None] = {}
        self._groups: dict[str, bool] = {}
        self.initialize_sources(None)

    def initialize_sources(self, config_search_path: ConfigSearchPath | None) -> None:
        """Make one source a folder; Hydra's own search path is not consulted."""
        self.sources = [_YamlSource(whose, str(folder), self) for whose, folder in self.folders]

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Load a config by its path in the search path; ``None`` if there is none."""
        if config_path not in self._loaded:
            if config_path in self.pretend:
                stand_in = self.pretend[config_path]
                self._loaded[config_path] = (self.load_config(stand_in) if stand_in else None) or _empty(config_path)
            else:
                self._loaded[config_path] = self._load(config_path)
        return self._loaded[config_path]

    def _load(self, config_path: str) -> ConfigResult | None:
        try:
            return super().load_config(config_path)
        except (ValueError, OmegaConfBaseException) as error:
            path = self.files.get(config_path)
            self.add_problem(config_path, "defaults", _defaults_mistake(str(error)))
            result = _empty(config_path)
            if path is not None:
                self.files[config_path] = path
            return result

    def config_exists(self, config_path: str) -> bool:
        """Tell whether a config exists, or is pretended to so that composing can go on."""
        return config_path in self.pretend or super().config_exists(config_path)

    def group_exists(self, config_path: str) -> bool:
        """Tell whether a group of options exists."""
        if config_path not in self._groups:
            plain = bool(re.fullmatch(r"[\w\-/@: ]+", config_path))
            self._groups[config_path] = plain and bool(super().group_exists(config_path))
        return self._groups[config_path]

    def forget(self, config_path: str, stand_in: str | None = None) -> None:
        """From now on, treat a config as if it were another, or an empty one."""
        self.pretend[config_path] = stand_in
        self._loaded.pop(config_path, None)

    def add_problem(self, config_path: str, key: str, message: str, fix: str | None = None) -> None:
        """Record a mistake at a key of a file."""
        path = self.files.get(config_path)
        origin = None
        if path is not None:
            mark = marks(path).get(key)
            origin = Origin(display_path(path), mark.line if mark else 1, mark.column if mark else 1)
        self.problems.append(Problem(message, key="", origin=origin, fix=fix))


def _empty(config_path: str) -> ConfigResult:
    return ConfigResult(
        provider="ai4sdk", path=config_path, config=OmegaConf.create(), header={"package": None}, defaults_list=[]
    )


def _defaults_mistake(message: str) -> str:
    return re.sub(r"^In [^:]*: ", "", message.splitlines()[0] if message else "the defaults list is not readable")


class _YamlSource(FileConfigSource):  # type: ignore[misc]
    """One folder of the search path."""

    def __init__(self, provider: str, path: str, repository: Repository) -> None:
        super().__init__(provider=provider, path=path)
        self.folder = path
        self.repository = repository

    def load_config(self, config_path: str) -> ConfigResult:
        path = Path(self.folder, self._normalize_file_name(config_path))
        self.repository.files[config_path] = path
        header: dict[str, str | None] = {"package": None}
        config: Any = OmegaConf.create()
        try:
            text = path.read_text(encoding="utf-8")
            header = ConfigSource._get_header_dict(text[:512])
            config = self._created(path, parse_yaml(text))
        except YamlMistake as error:
            origin = Origin(display_path(path), error.line, error.column)
            self.repository.problems.append(Problem(f"not readable: {error.message}", origin=origin))
        except UnicodeDecodeError as error:
            origin = Origin(display_path(path), 1, 1)
            self.repository.problems.append(
                Problem(f"not UTF-8 text: byte {error.start} is no character", origin=origin)
            )
        except (OSError, ValueError, OmegaConfBaseException) as error:
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            self.repository.problems.append(Problem(f"not readable: {reason}", origin=Origin(display_path(path), 1, 1)))
        return ConfigResult(provider=self.provider, path=f"file://{self.folder}", config=config, header=header)

    def _created(self, path: Path, values: dict[Any, Any]) -> Any:
        """Return the values as OmegaConf holds them; what it cannot hold is reported and left out."""
        try:
            return OmegaConf.create(values)
        except OmegaConfBaseException:
            return OmegaConf.create(self._without_mistakes(path, values, ""))

    def _without_mistakes(self, path: Path, value: Any, key: str) -> Any:
        if isinstance(value, dict):
            return {k: self._without_mistakes(path, v, f"{key}.{k}".lstrip(".")) for k, v in value.items()}
        if isinstance(value, list):
            return [self._without_mistakes(path, v, f"{key}.{i}") for i, v in enumerate(value)]
        try:
            OmegaConf.create({"value": value})
        except OmegaConfBaseException as error:
            mark = marks(path).get(key)
            origin = Origin(display_path(path), mark.line, mark.column) if mark else Origin(display_path(path), 1, 1)
            reason = str(error).splitlines()[0]
            fix = "write \\${ for a literal ${, or close the reference with }" if "${" in str(value) else None
            self.repository.problems.append(Problem(f"{key}: {reason}", key=key, origin=origin, fix=fix))
            return None
        return value
