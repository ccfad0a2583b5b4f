"""The names of a sweep → Optuna's samplers and pruners, and the options these take. Optuna is imported when called."""

from __future__ import annotations

import inspect
import random
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ai4sdk.config.axes import Space
from ai4sdk.config.keys import nearest
from ai4sdk.errors import Problem
from ai4sdk.spec.sweep import Pruner, Sweep

if TYPE_CHECKING:
    import optuna

__all__ = ["ONE_OBJECTIVE", "SAMPLERS", "make_pruner", "make_sampler", "quiet", "wrong_options"]

SAMPLERS = {"tpe": "TPESampler", "cmaes": "CmaEsSampler", "gp": "GPSampler", "nsga2": "NSGAIISampler"}
"""Name of a search → class in ``optuna.samplers``."""

ONE_OBJECTIVE = ("cmaes",)
"""Searches that cannot weigh objectives against each other."""

_PRUNERS = {
    "median": "MedianPruner",
    "percentile": "PercentilePruner",
    "hyperband": "HyperbandPruner",
    "successive_halving": "SuccessiveHalvingPruner",
    "threshold": "ThresholdPruner",
}
_PLAIN = re.compile(r"(int|float|bool|str|None)( \| (int|float|bool|str|None))*")
_TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "None": "null"}
_OURS = ("seed", "warn_independent_sampling")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna from writing about each trial and from warning of what is experimental."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(level)


@quiet()
def make_sampler(
    name: str,
    space: Space,
    *,
    seed: int,
    tried: int = 0,
    points: int | None = None,
    objectives: int = 1,
    options: Mapping[str, Any] | None = None,
) -> optuna.samplers.BaseSampler:
    """Make one of Optuna's samplers.

    Parameters
    ----------
    name
        A search, such as ``tpe``.
    space
        What it chooses from.
    seed
        Of the search.
    tried
        Points there are already. A sampler that goes on draws other random numbers than the one that began.
    points
        Points there will be.
    objectives
        How many objectives there are.
    options
        Arguments as Optuna names them.

    Returns
    -------
    optuna.samplers.BaseSampler
        The sampler; for ``grid`` and ``random``, whose points are known beforehand, one that is never asked.

    Raises
    ------
    TypeError, ValueError
        As Optuna raises them, if an option has a value it does not take.
    """
    import optuna

    if name not in SAMPLERS:
        return optuna.samplers.RandomSampler(seed)
    arguments = dict(options or {})
    if name == "tpe" and objectives == 1 and any(axis.when for axis in space) and "multivariate" not in arguments:
        # Axes that are not always there are only modelled together with others in groups.
        arguments = {"group": True, "multivariate": True, **arguments}
    if name == "cmaes":
        arguments["warn_independent_sampling"] = False
    if name == "nsga2":
        # Optuna's 50 a generation would make a random search of one with 50 points, and its uniform crossover, which
        # only deals out the numbers there are, would try every fifth point a second time.
        arguments.setdefault("population_size", min(50, max(4, (points or 300) // 6)))
        arguments["crossover"] = optuna.samplers.nsgaii.BLXAlphaCrossover()
    arguments["seed"] = seed if tried == 0 else random.Random(f"{seed}:{tried}").getrandbits(32)
    sampler: optuna.samplers.BaseSampler = getattr(optuna.samplers, SAMPLERS[name])(**arguments)
    return sampler


@quiet()
def make_pruner(pruner: Pruner | None) -> optuna.pruners.BasePruner:
    """Make one of Optuna's pruners; without a description one that never prunes.

    Raises
    ------
    TypeError, ValueError
        As Optuna raises them, if an option is missing or has a value it does not take.
    """
    import optuna

    if pruner is None:
        return optuna.pruners.NopPruner()
    made: optuna.pruners.BasePruner = getattr(optuna.pruners, _PRUNERS[pruner.kind])(**pruner.options)
    return made


def wrong_options(sweep: Sweep) -> Iterator[Problem]:
    """Find options that a search or pruner does not take, misses, or takes of another type."""
    import optuna

    sampler = getattr(optuna.samplers, SAMPLERS[sweep.search]) if sweep.search in SAMPLERS else None
    yield from _wrong("sweep.options", sweep.search, sampler, sweep.options)
    if sweep.pruner is not None:
        pruner = getattr(optuna.pruners, _PRUNERS[sweep.pruner.kind])
        yield from _wrong("sweep.pruner.options", sweep.pruner.kind, pruner, sweep.pruner.options)


def _wrong(section: str, name: str, made: type | None, given: Mapping[str, Any]) -> Iterator[Problem]:
    known = _options(made) if made is not None else {}
    for option, value in given.items():
        key = f"{section}.{option}"
        if option not in known:
            yield Problem(f"{name} has no option {option!r}", key=key, fix=_instead(section, option, list(known)))
            continue
        types = known[option].annotation.split(" | ")
        kind = "None" if value is None else type(value).__name__
        if kind not in types and not (kind == "int" and "float" in types):
            message = f"{option} of {name} must be {' or '.join(_TYPES[one] for one in types)}, not {value!r}"
            yield Problem(message, key=key, fix="leave it out, or give a value of that kind")
    for option, parameter in known.items():
        if parameter.default is parameter.empty and option not in given:
            message = f"{name} needs the option {option!r}"
            yield Problem(message, key=section, fix=f"{section}.{option}=VALUE")


def _instead(section: str, option: str, known: list[str]) -> str:
    if option == "seed":
        return "sweep.seed=0"
    if near := nearest(option, known):
        return f"{section}.{near}"
    return f"one of {', '.join(known)}" if known else f"{section}={{}}"


def _options(made: type) -> dict[str, inspect.Parameter]:
    """Return what a class takes that one can write in YAML, each with its annotation as text."""
    found = {}
    for name, parameter in inspect.signature(made).parameters.items():
        annotation = parameter.annotation
        text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
        if name not in _OURS and _PLAIN.fullmatch(text):
            found[name] = parameter.replace(annotation=text)
    return found
