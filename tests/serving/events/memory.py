"""A store in memory that can be told to fail, and stands for S3 (no moves) or a folder (moves)."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from ai4sdk.errors import DataError
from ai4sdk.serving.events.stores.base import Gone, Item


class Killed(BaseException):
    """The process ends here."""


class Power:
    """Counts what stores are asked to do, and ends everything before or after one of these."""

    def __init__(self, ends_at: float = float("inf")) -> None:
        self.ends_at, self.count = ends_at, 0.0

    def step(self, action: Callable[[], object]) -> object:
        self.count += 1
        if self.count > self.ends_at:  # a whole number: after that many actions
            raise Killed
        result = action()
        if self.count + 0.5 > self.ends_at:  # and a half: in the middle of the next, when it has had its effect
            self.count = float("inf")
            raise Killed
        return result


class Pause(Power):
    """Falls asleep after so many actions; what others do meanwhile is ``meanwhile``."""

    def __init__(self, after: int, meanwhile: Callable[[], object]) -> None:
        super().__init__()
        self.after, self.meanwhile = after, meanwhile

    def step(self, action: Callable[[], object]) -> object:
        result = super().step(action)
        if self.count == self.after:
            with ThreadPoolExecutor(1) as other:  # with an event loop of its own
                other.submit(self.meanwhile).result()
        return result


class MemoryStore:
    """Objects in a dictionary; ``objects`` outlives the store, as a bucket outlives processes."""

    atomic = True

    def __init__(self, objects: dict[str, bytes], power: Power | None = None, *, moves: bool = False) -> None:
        self.address, self.objects, self.moves = "memory://pond", objects, moves
        self.power = power or Power()
        self.away = 0
        self.page = 3
        self.lock = threading.RLock()
        self.log: list[str] = []

    def _do(self, what: str, action: Callable[[], object]) -> object:
        self.log.append(what)
        if self.away > 0:
            self.away -= 1
            raise DataError("cannot reach memory://pond: it is away")

        def locked() -> object:
            with self.lock:
                return action()

        return self.power.step(locked)

    def prepare(self, *, writing: bool) -> None:
        pass

    def item(self, key: str) -> Item:
        data = self.objects[key]
        return Item(key, hashlib.md5(data).hexdigest(), len(data))

    def pages(self, prefixes: Sequence[str]) -> Iterator[list[Item]]:
        keys = sorted(self.objects)
        for start in range(0, len(keys), self.page):
            found = self._do(
                f"list {start}", lambda start=start: [self.item(key) for key in keys[start : start + self.page]]
            )
            yield found  # type: ignore[misc]

    def stat(self, key: str) -> Item | None:
        return self._do(f"stat {key}", lambda: self.item(key) if key in self.objects else None)  # type: ignore[return-value]

    def read(self, item: Item, most: int) -> bytes:
        def read() -> bytes:
            if item.key not in self.objects or self.item(item.key) != item:
                raise Gone(item.key)
            return self.objects[item.key][: most + 1]

        return self._do(f"read {item.key}", read)  # type: ignore[return-value]

    def create(self, name: str, data: bytes) -> bool:
        def create() -> bool:
            if name in self.objects:
                return False
            self.objects[name] = data
            return True

        return self._do(f"create {name}", create)  # type: ignore[return-value]

    def put(self, name: str, data: bytes) -> None:
        self._do(f"put {name}", lambda: self.objects.update({name: data}))

    def fetch(self, name: str) -> bytes | None:
        return self._do(f"fetch {name}", lambda: self.objects.get(name))  # type: ignore[return-value]

    def exists(self, name: str) -> bool:
        return self._do(f"exists {name}", lambda: name in self.objects)  # type: ignore[return-value]

    def move(self, source: str, target: str) -> bool:
        def move() -> bool:
            if source not in self.objects:
                raise Gone(source)
            data = self.objects.pop(source)
            if target in self.objects:
                return False
            self.objects[target] = data
            return True

        return self._do(f"move {source}", move)  # type: ignore[return-value]

    def names(self, folder: str) -> list[str]:
        def names() -> list[str]:
            found = (name.rpartition("/") for name in self.objects)
            return [name for where, _, name in found if where == folder]

        return self._do(f"names {folder}", names)  # type: ignore[return-value]

    def remove(self, name: str) -> None:
        self._do(f"remove {name}", lambda: self.objects.pop(name, None))
