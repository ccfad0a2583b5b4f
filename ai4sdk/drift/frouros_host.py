"""Frouros's detectors, in a process of the environment that has them. Stands alone: nothing of ai4sdk is imported.

Speaks lines of JSON. The first that comes is ``{"window": N, "detectors": [{"feature", "name", "options",
"reference"}]}``, answered by ``{"ready": VERSION}``; each further ``{"values": {feature: [number]}}`` by
``{"results": [{"feature", "name", "seen", "alarms", "warning", "windows": [{"p", "distance", "statistic"}]}]}``, with
``"error"`` instead of the last three where a detector fails. What cannot be done is answered by ``{"error": TEXT}``.
"""

from __future__ import annotations

import json
import math
import os
import sys
import warnings
from typing import Any


class Streaming:
    """A detector that sees one value after the other; begins anew after an alarm."""

    def __init__(self, detector: Any) -> None:
        self.detector = detector

    def see(self, values: list[float]) -> dict[str, Any]:
        alarms = 0
        for value in values:
            self.detector.update(value=value)
            if self.detector.drift:
                alarms += 1
                self.detector.reset()
        return {"alarms": alarms, "warning": bool(self.detector.status.get("warning", False)), "windows": []}


class Tested:
    """A detector that was fitted to the reference, and sees one value after the other."""

    def __init__(self, detector: Any) -> None:
        self.detector = detector
        self.last: Any = None

    def see(self, values: list[float]) -> dict[str, Any]:
        for value in values:
            result, _ = self.detector.update(value=value)
            self.last = result if result is not None else self.last
        # Windows overlap; one result for each batch is what can be told of them.
        return {"alarms": 0, "warning": False, "windows": [] if self.last is None else [_figures(self.last)]}


class Batches:
    """A detector that compares windows with the reference."""

    def __init__(self, detector: Any, window: int) -> None:
        self.detector, self.window = detector, window
        self.waiting: list[float] = []

    def see(self, values: list[float]) -> dict[str, Any]:
        import numpy

        self.waiting += values
        found = []
        while len(self.waiting) >= self.window:
            now, self.waiting = self.waiting[: self.window], self.waiting[self.window :]
            found.append(_figures(self.detector.compare(X=numpy.asarray(now))[0]))
        return {"alarms": 0, "warning": False, "windows": found}


def _figures(result: Any) -> dict[str, float | None]:
    return {
        name: _finite(getattr(result, attribute))
        for name, attribute in (("p", "p_value"), ("distance", "distance"), ("statistic", "statistic"))
        if hasattr(result, attribute)
    }


def _finite(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def seen(detector: Any, values: list[float]) -> dict[str, Any]:
    try:
        found: dict[str, Any] = detector.see(values)
    except Exception as error:  # noqa: BLE001 - some take no values that are all alike; others go on
        return {"error": f"{type(error).__name__}: {error}"}
    return found


def opened(wanted: dict[str, Any], window: int) -> Any:
    import numpy
    from frouros.detectors import concept_drift, data_drift

    name, options = wanted["name"], wanted["options"]
    if hasattr(concept_drift, name):
        config = getattr(concept_drift, name + "Config")
        return Streaming(getattr(concept_drift, name)(config=config(**options)))
    if not hasattr(data_drift, name):
        raise ValueError(f"this frouros has no detector {name}")
    kind = getattr(data_drift, name)
    reference = numpy.asarray(wanted["reference"])
    if ".streaming." in kind.__module__:
        detector = kind(**{"window_size": window, **options})
        detector.fit(X=reference)
        return Tested(detector)
    detector = kind(**options)
    detector.fit(X=reference)
    return Batches(detector, window)


def main() -> None:
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever prints, does not print into the answers
    detectors: list[tuple[dict[str, Any], Any]] = []
    for line in sys.stdin:
        try:
            asked = json.loads(line)
            if "detectors" in asked:
                detectors = [(each, opened(each, asked["window"])) for each in asked["detectors"]]
                from importlib.metadata import version

                answer: dict[str, Any] = {"ready": version("frouros")}
            else:
                results = []
                for each, detector in detectors:
                    values = asked["values"].get(each["feature"], [])
                    if values:
                        head = {"feature": each["feature"], "name": each["name"], "seen": len(values)}
                        results.append({**head, **seen(detector, values)})
                answer = {"results": results}
        except Exception as error:  # noqa: BLE001 - told to who asked, who decides
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer, allow_nan=False) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
