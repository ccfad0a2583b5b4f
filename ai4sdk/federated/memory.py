"""What a site keeps from round to round, and never sends.

A file a round, so that a round which is done again begins with what the round before left: the server says in which
round a site's answer last counted, and that is what the site goes on from.
"""

from __future__ import annotations

import logging
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ai4sdk.errors import EnvironmentFault
from ai4sdk.federated.weights import Arrays
from ai4sdk.runs.files import sync

__all__ = ["Memory"]

log = logging.getLogger(__name__)


class Memory:
    """The memories of sites.

    Parameters
    ----------
    folder
        Has a folder for each of them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, site: str, since: int) -> Arrays:
        """Return what a site kept in a round; nothing for round 0, which is before the first.

        Parameters
        ----------
        site
            Name of its folder.
        since
            The round in which its answer last counted.
        """
        if not since:
            return {}
        try:
            return dict(load_file(self._path(site, since)))
        except (OSError, SafetensorError) as error:
            log.warning("what %s kept in round %d is lost, and it starts anew: %s", site, since, error)
            return {}

    def save(self, site: str, round_number: int, arrays: Arrays, *, since: int) -> None:
        """Keep arrays; they are on the disk when this returns.

        What was kept in rounds before ``since`` is removed: the server has written that one down, and asks for no
        earlier one again.

        Raises
        ------
        EnvironmentFault
            If they cannot be written.
        """
        path = self._path(site, round_number)
        scratch = path.with_name(f".{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(arrays, scratch)
            sync(scratch)
            scratch.replace(path)
            sync(path.parent)
            for old in path.parent.glob("*.safetensors"):
                if old.stem.isdecimal() and int(old.stem) < since:
                    old.unlink()
        except (OSError, SafetensorError) as error:
            raise EnvironmentFault(
                f"what {site} keeps of round {round_number} could not be written to {path.parent}: {error}",
                hint="free some space, then `ai4sdk resume`",
            ) from error

    def _path(self, site: str, round_number: int) -> Path:
        return self._folder / site / f"{round_number:05d}.safetensors"
