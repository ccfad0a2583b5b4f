"""How often drift is seen that is none, and how soon drift is seen that is some: digits, patients, made-up samples.

A module learns from two fifths of the samples. The others are taken as the whole world: references and new samples
are drawn from them at random, with replacement, so that both are of exactly one distribution; drift is then made on
purpose. Of tables and pictures that are made up, each kind of feature and each kind of drift is known exactly.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ai4sdk.drift.features import Features, Form, features_of_inputs, features_of_outputs
from ai4sdk.drift.reference import Reference, make_reference
from ai4sdk.drift.states import Hits
from ai4sdk.drift.streams import open_streams
from ai4sdk.drift.verdict import judge
from ai4sdk.drift.watch import DriftWatch
from ai4sdk.drift.windows import Windows
from ai4sdk.spec import Images
from ai4sdk.spec.drift import DriftWatching
from ai4sdk.worker.prediction import Prediction, predict_classes

MODULES = Path(__file__).resolve().parents[1] / "modules"
sys.path[:0] = [str(MODULES / "digits"), str(MODULES / "heart")]

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
Both = tuple[Features, Features]


class World:
    """Samples that are taken for all there are, a module that answers, and ways to drift.

    Parameters
    ----------
    name
        What it is called.
    x
        Samples.
    form
        How features are read from them.
    module
        Answers.
    changes
        What happens to samples when they drift.
    others
        Samples of other origin.
    reference
        Samples of a reference.
    """

    def __init__(
        self,
        name: str,
        x: np.ndarray,
        form: Form,
        module: nn.Module,
        changes: dict[str, Change],
        others: dict[str, np.ndarray],
        reference: int,
    ) -> None:
        self.name, self.x, self.form, self.module, self.reference = name, x, form, module, reference
        generator = np.random.default_rng(0)
        pools = {"": x, **{name: change(x, generator) for name, change in changes.items()}, **others}
        self.pools = {name: (features_of_inputs(pool, form), self.outputs(pool)) for name, pool in pools.items()}
        self.drifts = [name for name in pools if name]

    def answers(self, x: np.ndarray) -> Prediction:
        with torch.no_grad():
            return predict_classes(self.module(torch.from_numpy(x.astype(np.float32))).numpy(), "logits", None)

    def outputs(self, x: np.ndarray) -> Features:
        return features_of_outputs(self.answers(x))

    def drawn(self, count: int, generator: np.random.Generator, change: str = "") -> Both:
        """Draw features of samples and of the answers to them."""
        inputs, outputs = self.pools[change]
        rows = generator.integers(0, len(outputs["class"]), count)
        return taken(inputs, rows), taken(outputs, rows)

    def known(self, generator: np.random.Generator) -> Reference:
        return make_reference(self.form, *self.drawn(self.reference, generator), ())


def taken(features: Features, rows: np.ndarray) -> Features:
    return {
        name: values[rows] if isinstance(values, np.ndarray) else [values[row] for row in rows]
        for name, values in features.items()
    }


def learnt(module: nn.Module, x: np.ndarray, y: np.ndarray, epochs: int) -> nn.Module:
    torch.manual_seed(0)
    inputs, targets = torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.astype(np.int64))
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(inputs[batch]), targets[batch]).backward()
            optimizer.step()
    return module.eval()


def digits() -> World:
    from digits_classifier import DigitsClassifier
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.data))
    few, rest = order[: len(order) * 2 // 5], order[len(order) * 2 // 5 :]
    module = learnt(DigitsClassifier(), found.data[few], found.target[few], 15)

    def aside(x: np.ndarray, _: np.random.Generator) -> np.ndarray:
        return np.roll(x.reshape(-1, 8, 8), 1, axis=2).reshape(-1, 64)

    def one_pixel(x: np.ndarray, _: np.random.Generator) -> np.ndarray:
        broken = x.copy()
        broken[:, 28] = 0
        return broken

    changes: dict[str, Change] = {
        "a fifth paler": lambda x, _: np.round(x * 0.8),
        "noise of 1 in 16": lambda x, g: np.clip(np.round(x + g.normal(0, 1, x.shape)), 0, 16),
        "one pixel to the side": aside,
        "one dead pixel of 64": one_pixel,
    }
    high = found.target[rest] > 4
    half = np.concatenate([rest[high], rest[high], rest[~high]])  # 5 to 9 twice as often
    others = {"5 to 9 twice as often": found.data[half]}
    return World("digits", found.data[rest], Form("array", shape=(64,)), module, changes, others, 1000)


def heart() -> World:
    from heart_disease import FEATURES, HeartDisease, patients

    every = patients()
    x, y, where = every.inputs.numpy().astype(np.float64), every.targets.numpy(), np.array(every.hospital)
    home = np.flatnonzero(np.isin(where, ["cleveland", "hungary"]))
    order = np.random.default_rng(0).permutation(home)
    few, rest = order[: len(order) * 2 // 5], order[len(order) * 2 // 5 :]
    module = learnt(HeartDisease(), x[few], y[few], 30)
    age, rate = FEATURES.index("age"), FEATURES.index("heart rate")

    def older(x: np.ndarray, _: np.random.Generator) -> np.ndarray:
        moved = x.copy()
        moved[:, age] += 0.5
        return moved

    def other_device(x: np.ndarray, _: np.random.Generator) -> np.ndarray:
        moved = x.copy()
        moved[:, rate] *= 1.2
        return moved

    changes: dict[str, Change] = {"5 years older": older, "heart rates spread by a fifth": other_device}
    others = {f"patients of {name}": x[where == name] for name in ("switzerland", "long_beach")}
    form = Form("array", shape=(len(FEATURES),), names=FEATURES)
    return World("heart", x[rest], form, module, changes, others, 500)


def share(hits: int, of: int) -> str:
    return f"{hits / of:6.1%} of {of}"


def batches(world: World, seeds: int) -> dict[str, dict[str, float]]:
    """Judge single batches."""
    print(f"\n{world.name}: batches against a reference of {world.reference} samples, alpha 0.05")
    told: dict[str, dict[str, float]] = {}
    for change in ("", *world.drifts):
        line = {}
        for size in (50, 200):
            rounds = seeds if not change else max(20, seeds // 10)
            hits = 0
            for seed in range(rounds):
                generator = np.random.default_rng((seed, size))
                known = world.known(generator)
                hits += judge(known, *world.drawn(size, generator, change), alpha=0.05).drifted
            line[str(size)] = hits / rounds
            print(f"  {change or 'no drift':32} {size:4} samples  drift in {share(hits, rounds)}", flush=True)
        told[change or "no drift"] = line
    return told


def windows(world: World, seeds: int, settings: DriftWatching) -> dict[str, dict[str, float]]:
    """Watch streams of windows."""
    print(f"\n{world.name}: windows of {settings.window}, alpha {settings.alpha:g}")
    quiet, told = 20, {}
    warned = drifted = streams = 0
    for seed in range(max(10, seeds // 10)):
        generator = np.random.default_rng((seed, 1))
        detector, hits = Windows(world.known(generator), settings.window, settings.alpha), Hits()
        states = [
            hits.see(verdict.drifted)
            for _ in range(quiet)
            for verdict in detector.add(*world.drawn(settings.window, generator))
        ]
        warned += sum(state != "ok" for state in states)
        drifted += "drift" in states
        streams += 1
    print(
        f"  no drift: warning or more in {share(warned, quiet * streams)} windows, drift in {share(drifted, streams)}"
    )
    print(f"            streams of {quiet * settings.window:,} samples", flush=True)
    told["no drift"] = {"windows": warned / (quiet * streams), "streams": drifted / streams}
    for change in world.drifts:
        seen: list[dict[str, int]] = []
        for seed in range(max(10, seeds // 10)):
            generator = np.random.default_rng((seed, 2))
            detector, hits = Windows(world.known(generator), settings.window, settings.alpha), Hits()
            # Drift begins somewhere in a window.
            before = int(generator.integers(0, settings.window))
            list(detector.add(*world.drawn(before, generator))) if before else None
            seen.append(noticed(detector, hits, settings.window, partial(world.drawn, 25, generator, change)))
        told[change] = told_delays(change, seen, settings.window)
    return told


def noticed(
    detector: Windows, hits: Hits, window: int, draw: Callable[[], tuple[Features, Features]]
) -> dict[str, int]:
    """Return after how many drifted samples each state was first seen; they come 25 at a time."""
    seen: dict[str, int] = {}
    for number in range(1, 20 * window // 25):
        for verdict in detector.add(*draw()):
            seen.setdefault(hits.see(verdict.drifted), number * 25)
        if "drift" in seen:
            break
    return seen


def told_delays(name: str, seen: list[dict[str, int]], window: int) -> dict[str, float]:
    """Print how soon a drift was noticed, and return it."""
    delays = {state: [one[state] for one in seen if state in one] for state in ("warning", "drift")}
    line = {state: statistics.median(found) if found else float("nan") for state, found in delays.items()}
    missed = len(seen) - len(delays["drift"])
    print(
        f"  {name:32} warning after {line['warning']:5.0f} samples, drift after {line['drift']:5.0f} (medians), "
        f"not in {20 * window:,}: {missed} of {len(seen)}",
        flush=True,
    )
    return {**line, "missed": missed / len(seen)}


def streams(world: World, seeds: int, settings: DriftWatching) -> dict[str, dict[str, float]]:
    """Watch streams of confidences with river's detectors."""
    print(f"\n{world.name}: river's detectors on the confidence, alpha {settings.alpha:g}")
    length, told = 3_000, {}
    for name in ("adwin", "kswin", "page_hinkley"):
        alarmed = alarms = 0
        rounds = max(10, seeds // (20 if name == "kswin" else 10))  # river's takes a third of a millisecond a value
        for seed in range(rounds):
            generator = np.random.default_rng((seed, 3))
            known = world.known(generator).outputs
            stream = open_streams([name], known, alpha=settings.alpha, hold=settings.window)["confidence"][0]
            stream.see(world.drawn(length, generator)[1]["confidence"])
            alarmed += stream.alarms > 0
            alarms += stream.alarms
        print(
            f"  {name:13} no drift: an alarm in {share(alarmed, rounds)} streams of {length:,}; {alarms} alarms in all",
            flush=True,
        )
        told[name] = {"streams with a false alarm": alarmed / rounds, "alarms": alarms}
        for change in world.drifts:
            delays = []
            for seed in range(rounds // 2):
                generator = np.random.default_rng((seed, 4))
                known = world.known(generator).outputs
                stream = open_streams([name], known, alpha=settings.alpha, hold=settings.window)["confidence"][0]
                stream.see(world.drawn(500, generator)[1]["confidence"])
                before = stream.alarms
                values = world.drawn(length, generator, change)[1]["confidence"]
                for delay, value in enumerate(values, start=1):
                    stream.see(np.array([value]))
                    if stream.alarms > before:
                        delays.append(delay)
                        break
            found = f"{statistics.median(delays):5.0f}" if delays else "    –"
            print(f"    {change:32} seen after {found} samples (median), not seen {rounds // 2 - len(delays)} times")
            told[name][change] = statistics.median(delays) if delays else float("nan")
    return told


PICTURES = Form("images", images=Images(size=[16, 16], mode="RGB"))


def made_rows(
    g: np.random.Generator, n: int, *, mean: float = 0.0, spread: float = 1.0, share: float = 0.2,
    missing: float = 0.05, new: float = 0.0,
) -> Both:  # fmt: skip
    """Make up samples with a feature of every kind, one of which may drift."""
    age = g.normal(50, 10, n)
    age[g.uniform(size=n) < missing] = np.nan
    colours = g.choice(["a", "b", "c"], n, p=[share, 0.5, 0.5 - share])
    inputs: Features = {
        "normal": g.normal(mean, spread, n),
        "with gaps": age,
        "counts": g.poisson(2, n).astype(np.float64),
        "skewed": g.lognormal(0, 1, n),
        "rare": (g.uniform(size=n) < 0.1).astype(np.float64),
        "constant": np.full(n, 7.0),
        "texts": [
            "new" if is_new else str(each) for is_new, each in zip(g.uniform(size=n) < new, colours, strict=True)
        ],
        "many rare texts": [str(each) for each in g.zipf(2, n)],
    }
    return inputs, {"class": [str(each) for each in g.choice(["x", "y"], n)], "confidence": g.beta(5, 1, n)}


def made_pictures(g: np.random.Generator, n: int, *, brighter: float = 0.0) -> Both:
    """Make up pictures of random colours and noise."""
    pixels = g.uniform(0.2, 0.8, (n, 3, 1, 1)) + g.normal(0, 0.1, (n, 3, 16, 16)) + brighter
    inputs = features_of_inputs(np.clip(pixels, 0, 1).astype(np.float32), PICTURES)
    return inputs, {"class": [str(each) for each in g.choice(["x", "y"], n)], "confidence": g.beta(5, 1, n)}


MADE: list[tuple[str, Callable[..., Both], dict[str, float]]] = [
    ("mean moved by half a deviation", made_rows, {"mean": 0.5}),
    ("mean moved by a quarter", made_rows, {"mean": 0.25}),
    ("deviation twice as large", made_rows, {"spread": 2.0}),
    ("deviation half as large again", made_rows, {"spread": 1.5}),
    ("a text's share from 20 to 35 %", made_rows, {"share": 0.35}),
    ("missing from 5 to 15 %", made_rows, {"missing": 0.15}),
    ("a new text in 5 %", made_rows, {"new": 0.05}),
    ("pictures brighter by 0.1 of 1", made_pictures, {"brighter": 0.1}),
    ("pictures brighter by 0.05", made_pictures, {"brighter": 0.05}),
]


def made_up(seeds: int, settings: DriftWatching) -> dict[str, object]:
    """Judge and watch samples that are made up."""
    print("\nmade up: 8 features and 2 answers, or pictures")
    told: dict[str, object] = {}
    for name, make, reference, size, alpha in (
        ("rows", made_rows, 2000, 200, 0.05),
        ("rows", made_rows, 2000, 250, 0.01),
        ("rows", made_rows, 300, 20, 0.05),
        ("rows", made_rows, 50, 3, 0.05),
        ("pictures", made_pictures, 500, 100, 0.05),
        ("pictures", made_pictures, 1000, 250, 0.01),
    ):
        rounds = seeds * 5 if make is made_rows else seeds
        hits = 0
        for seed in range(rounds):
            generator = np.random.default_rng((seed, 7))
            known = make_reference(None, *make(generator, reference), ())
            hits += judge(known, *make(generator, size), alpha=alpha).drifted
        print(
            f"  no drift, {size} {name} to {reference:,}, alpha {alpha:g}: drift in {share(hits, rounds)}", flush=True
        )
        told[f"{size} {name} to {reference}, alpha {alpha:g}"] = hits / rounds
    for name, make, drift in MADE:
        seen: list[dict[str, int]] = []
        for seed in range(max(10, seeds // 10)):
            generator = np.random.default_rng((seed, 8))
            known = make_reference(None, *make(generator, 2000 if make is made_rows else 1000), ())
            detector = Windows(known, settings.window, settings.alpha)
            list(detector.add(*make(generator, int(generator.integers(1, settings.window)))))
            seen.append(noticed(detector, Hits(), settings.window, partial(make, generator, 25, **drift)))
        told[name] = told_delays(name, seen, settings.window)
    return told


def cost(world: World) -> dict[str, float]:
    """Time what the serving thread pays, and what the watching one does."""
    generator = np.random.default_rng(0)
    ready = [(x, world.answers(x)) for x in (world.x[generator.integers(0, len(world.x), 10)] for _ in range(1000))]
    with DriftWatch(world.known(generator), DriftWatching(queue=100_000, load=1.0)) as watch:
        times = []
        began = time.perf_counter()
        for x, prediction in ready:
            start = time.perf_counter()
            watch.feed(x, prediction)
            times.append(time.perf_counter() - start)
        watch.drain(600)
        each = (time.perf_counter() - began) / 10_000
        assert watch.snapshot()["counters"]["windows"] == 40
    times.sort()
    line = {"feed median us": times[500] * 1e6, "feed p99 us": times[990] * 1e6, "watching us a sample": each * 1e6}
    print(f"\n{world.name}: " + ", ".join(f"{name} {value:.1f}" for name, value in line.items()))
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--made-up", action="store_true", help="only samples that are made up")
    given = parser.parse_args()
    seeds = given.seeds
    torch.set_num_threads(1)
    settings = DriftWatching()
    result: dict[str, object] = {"made up": made_up(seeds, settings)}
    for world in () if given.made_up else (digits(), heart()):
        result[world.name] = {
            "batches": batches(world, seeds),
            "windows": windows(world, seeds, settings),
            "streams": streams(world, seeds, settings),
            "cost": cost(world),
        }
    print(json.dumps(plain(result), allow_nan=False))


def plain(value: object) -> object:
    """Write what was never seen as null."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return None if isinstance(value, float) and value != value else value


if __name__ == "__main__":
    main()
