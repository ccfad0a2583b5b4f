"""Which of a task's processes this one is, as torchrun's variables tell it, whoever started it.

Nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ai4sdk.errors import EnvironmentFault

__all__ = ["ALONE", "LISTEN", "Rank", "read_rank"]

LISTEN = "AI4SDK_LISTEN_FD"
"""Variable with the descriptor of a socket that listens at MASTER_PORT already; without it rank 0 opens the port."""


@dataclass(frozen=True)
class Rank:
    """One of the processes of a task.

    Parameters
    ----------
    rank, world_size
        Its number among all processes, and how many there are.
    local_rank, local_world_size
        The same among the processes of this node.
    address, port
        Where rank 0 listens for the others.
    listening
        Descriptor of a socket that listens there already.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    address: str = ""
    port: int = 0
    listening: int | None = None

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes records, checkpoints and the package."""
        return self.rank == 0

    @property
    def node(self) -> int:
        """Number of its node."""
        return self.rank // self.local_world_size


ALONE = Rank()
"""The only process of a task."""


def read_rank(world_size: int, environment: Mapping[str, str]) -> Rank:
    """Read which process this is.

    Parameters
    ----------
    world_size
        Processes that the plan says there are. If it is one, nothing is read: the variables may be another launcher's.
    environment
        ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``LOCAL_WORLD_SIZE``, ``MASTER_ADDR`` and ``MASTER_PORT``.

    Raises
    ------
    EnvironmentFault
        If they are missing, no numbers, or not those of the plan.
    """
    if world_size == 1:
        return ALONE
    numbers = {}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT"):
        text = environment.get(name, "")
        if not text.isdecimal():
            raise EnvironmentFault(
                f"the plan has {world_size} processes, but {name} is {text!r} here",
                hint="start the plan with `ai4sdk run --plan`, or the workers as torchrun does",
            )
        numbers[name] = int(text)
    if not (address := environment.get("MASTER_ADDR", "")):
        raise EnvironmentFault(f"the plan has {world_size} processes, but MASTER_ADDR is not set here")
    if numbers["WORLD_SIZE"] != world_size or numbers["RANK"] >= world_size:
        raise EnvironmentFault(
            f"the plan has {world_size} processes, but this one was started as rank {numbers['RANK']} "
            f"of {numbers['WORLD_SIZE']}"
        )
    return Rank(
        numbers["RANK"],
        world_size,
        numbers["LOCAL_RANK"],
        numbers["LOCAL_WORLD_SIZE"],
        address,
        numbers["MASTER_PORT"],
        int(environment[LISTEN]) if LISTEN in environment else None,
    )
