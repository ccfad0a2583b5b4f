"""Random state: of the process, of generators that the user's objects own, and of a stream kept apart."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

__all__ = [
    "Stream",
    "find_generators",
    "generator_states",
    "random_state",
    "reseed",
    "seed_of_rank",
    "set_generator_states",
    "set_random_state",
]

Generator = torch.Generator | np.random.Generator | np.random.RandomState | random.Random
_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)

_numpy_source: Any = np.random.get_bit_generator  # type: ignore[attr-defined] # missing in numpy's stubs
_set_numpy_source: Any = np.random.set_bit_generator  # type: ignore[attr-defined] # as above

_OPAQUE = (str, bytes, int, float, complex, bool, type, torch.Tensor, np.ndarray)
_LARGEST_CONTAINER = 64  # a longer list holds samples, not the parts of a loader
_MOST_OBJECTS = 20_000
_DEEPEST = 10


def random_state(*, devices: bool = True) -> dict[str, Any]:
    """Return the state of Python's, numpy's and torch's global generators, as plain values and tensors.

    Parameters
    ----------
    devices
        Whether to include the generators of all GPUs.
    """
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state = {
        "python": [version, list(words), gauss],
        "numpy": [
            str(kind),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(position),
            int(has_gauss),
            cached,
        ],
        "torch": torch.get_rng_state(),
    }
    if devices and torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put back what `random_state` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state.get("cuda") and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])


def seed_of_rank(seed: int, rank: int) -> int:
    """Return a seed for one of several processes, other than those of the others and of neighbouring seeds."""
    return int(np.random.SeedSequence([seed, rank]).generate_state(1)[0])


class Stream:
    """Random numbers kept apart from the process's: within `use`, the global generators are those of the stream.

    Parameters
    ----------
    seed
        Seed of the stream, 0 to 2**63 - 1.
    """

    def __init__(self, seed: int) -> None:
        self._python: Any = random.Random(seed).getstate()
        self._numpy = np.random.MT19937(seed)
        self._torch = torch.Generator().manual_seed(seed).get_state()

    @contextmanager
    def use(self) -> Iterator[None]:
        """Draw from the stream inside the block."""
        python, numpy, state = random.getstate(), _numpy_source(), torch.get_rng_state()
        random.setstate(self._python)
        _set_numpy_source(self._numpy)  # swapping numpy's state takes 70 microseconds, its source 2
        torch.set_rng_state(self._torch)
        try:
            yield
        finally:
            self._python, self._torch = random.getstate(), torch.get_rng_state()
            random.setstate(python)
            _set_numpy_source(numpy)
            torch.set_rng_state(state)


def find_generators(roots: Mapping[str, object]) -> dict[str, Generator]:
    """Find the random generators that objects own, such as a loader's ``generator`` or a dataset's ``rng``.

    Attributes and short containers are followed, not the elements of long ones.

    Parameters
    ----------
    roots
        Name → object to look into.

    Returns
    -------
    dict
        Path from the root, such as ``train.0.dataset.rng`` → generator.
    """
    found: dict[str, Generator] = {}
    seen: set[int] = set()
    pending: list[tuple[str, object, int]] = [(name, root, 0) for name, root in reversed(list(roots.items()))]
    while pending and len(seen) < _MOST_OBJECTS:
        path, value, depth = pending.pop()
        if isinstance(value, _OPAQUE) or value is None or (callable(value) and not hasattr(value, "__dict__")):
            continue
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, _GENERATORS):
            found[path] = value
            continue
        if depth < _DEEPEST:
            pending += [(f"{path}.{name}", part, depth + 1) for name, part in _parts(value)]
    return found


def _parts(value: object) -> list[tuple[str, object]]:
    """Return what an object is made of."""
    if isinstance(value, Mapping):
        return [(str(key), part) for key, part in value.items()] if len(value) <= _LARGEST_CONTAINER else []
    if isinstance(value, list | tuple | set | frozenset):
        return [(str(index), part) for index, part in enumerate(value)] if len(value) <= _LARGEST_CONTAINER else []
    kind = type(value)
    if kind.__module__.startswith(("pytorch_lightning.trainer", "pytorch_lightning.loops", "builtins", "pandas", "re")):
        return []
    if hasattr(value, "__code__") or kind.__name__ == "module":
        return []
    return list(getattr(value, "__dict__", {}).items())


def generator_states(generators: Mapping[str, Generator]) -> dict[str, Any]:
    """Return the generators' states by path, as plain values and tensors."""
    return {path: _state_of(generator) for path, generator in generators.items()}


def set_generator_states(generators: Mapping[str, Generator], states: Mapping[str, Any]) -> list[str]:
    """Put back what `generator_states` returned.

    Returns
    -------
    list of str
        Paths that only one of the two has; they were left as they are.
    """
    for path in generators.keys() & states.keys():
        _set_state(generators[path], states[path])
    return sorted(generators.keys() ^ states.keys())


def reseed(generators: Mapping[str, Generator], seed: int) -> None:
    """Give every generator a state that follows from a seed and from where the generator is."""
    for path, generator in generators.items():
        words = np.random.SeedSequence([seed, *path.encode()]).generate_state(1)
        own = int(words[0])
        if isinstance(generator, torch.Generator):
            generator.manual_seed(own)
        elif isinstance(generator, random.Random | np.random.RandomState):
            generator.seed(own)
        else:
            generator.bit_generator.state = type(generator.bit_generator)(own).state


def _state_of(generator: Generator) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        version, words, gauss = generator.getstate()
        return [version, list(words), gauss]
    if isinstance(generator, np.random.RandomState):
        return json.dumps(generator.get_state(legacy=False), default=_as_list)
    return json.dumps(generator.bit_generator.state, default=_as_list)


def _set_state(generator: Generator, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        version, words, gauss = state
        generator.setstate((version, tuple(words), gauss))
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(json.loads(state))
    else:
        generator.bit_generator.state = json.loads(state)


def _as_list(value: Any) -> Any:
    return value.tolist()
