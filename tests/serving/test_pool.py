"""Model processes that die, hang and fail to load: every request is answered, and only the guilty one fails."""

import asyncio
import json
import os
import signal
import time
from collections import Counter

import psutil
import pytest
from serving.faulty import write_faulty_package

from ai4sdk.errors import DataError, NotFound, RunFailed
from ai4sdk.serving import link
from ai4sdk.serving import pool as room
from ai4sdk.serving.messages import JSON, Request
from ai4sdk.serving.pool import Pool, PoolSettings

pytestmark = [pytest.mark.slow, pytest.mark.engine]


class Notes:
    def __init__(self):
        self.batches = []
        self.deaths = 0

    def batch(self, requests, facts):
        self.batches.append(requests)

    def died(self):
        self.deaths += 1


def request(first=0.0, rows=1):
    return Request("natural", "infer", JSON, json.dumps({"inputs": [[first, 1.0, 2.0, 3.0]] * rows}).encode())


def within(folder, work, **settings):
    """Run a coroutine function with a pool of the package, and what it noted."""

    async def run():
        notes = Notes()
        options = {"timeout": 20.0, "trust_code": True, **settings}
        pool = Pool(PoolSettings("faulty", "1", folder, **options), notes)
        await pool.start()
        try:
            return await work(pool, notes)
        finally:
            await pool.close()

    return asyncio.run(run())


def test_what_comes_while_a_batch_is_computed_is_the_next_batch(faulty):
    async def work(pool, notes):
        answers = await asyncio.gather(pool.ask(request(222.0)), *(pool.ask(request(float(n % 7))) for n in range(40)))
        await asyncio.gather(*(pool.ask(request()) for _ in range(40)))
        return answers, notes.batches

    answers, batches = within(faulty, work, batch_size=16)
    assert {answer.status for answer in answers} == {200}
    assert sum(batches) == 81
    assert max(batches) == 16
    alone = [json.loads(answer.body)["predictions"][0]["probabilities"] for answer in answers[1:]]
    assert alone[0] == pytest.approx(alone[7])
    assert alone[0] != pytest.approx(alone[1])


def test_a_model_that_mixes_samples_is_served_without_batches(tmp_path):
    folder = write_faulty_package(tmp_path, name="mixing", mixes=True)

    async def work(pool, notes):
        await asyncio.gather(*(pool.ask(request()) for _ in range(20)))
        return pool.facts["batches"], notes.batches

    assert within(folder, work) == (False, [1] * 20)


def test_a_process_that_is_killed_loses_no_request(faulty):
    async def work(pool, notes):
        answers = []
        for _ in range(2):
            tasks = [asyncio.ensure_future(pool.ask(request(222.0 if n % 20 == 0 else 1.0))) for n in range(30)]
            await asyncio.sleep(0.3)
            os.kill(pool.facts["pid"], signal.SIGKILL)
            answers += await asyncio.gather(*tasks)
        return [answer.status for answer in answers], notes.deaths

    statuses, deaths = within(faulty, work, timeout=300.0)
    assert Counter(statuses) == {200: 60}
    assert deaths == 2


def test_a_system_without_room_for_a_process_is_asked_again(faulty, monkeypatch, caplog):
    spawn, refused = room.spawn, iter([OSError(11, "Resource temporarily unavailable")] * 2)

    def none_left():
        with monkeypatch.context() as patch:
            if (error := next(refused, None)) is not None:
                patch.setattr(link.subprocess, "Popen", lambda *_, **__: (_ for _ in ()).throw(error))
            return spawn()

    async def work(pool, notes):
        monkeypatch.setattr(room, "spawn", none_left)
        descriptors = psutil.Process().num_fds()
        os.kill(pool.facts["pid"], signal.SIGKILL)
        answer = await pool.ask(request())
        return answer.status, psutil.Process().num_fds() - descriptors

    assert within(faulty, work, timeout=300.0) == (200, 0)
    assert caplog.text.count("cannot be started: Resource temporarily unavailable") == 2


def test_a_request_that_kills_its_process_fails_alone(faulty):
    async def work(pool, notes):
        slow = asyncio.ensure_future(pool.ask(request(222.0)))
        await asyncio.sleep(0.1)
        answers = await asyncio.gather(*(pool.ask(request(888.0 if number == 3 else 1.0)) for number in range(8)))
        return [answer.status for answer in [await slow, *answers]], notes.deaths, json.loads(answers[3].body)

    statuses, deaths, body = within(faulty, work, timeout=300.0)
    assert statuses == [200, 200, 200, 200, 500, 200, 200, 200, 200]
    assert deaths == 2
    assert "died" in body["error"]


def test_a_request_that_hangs_is_answered_and_its_process_replaced(faulty):
    async def work(pool, notes):
        began = time.monotonic()
        hung = await pool.ask(request(777.0))
        took = time.monotonic() - began
        until = time.monotonic() + 60
        answer = await pool.ask(request())
        while answer.status == 503 and time.monotonic() < until:
            answer = await pool.ask(request())
        return hung, took, answer.status, notes.deaths

    hung, took, after, deaths = within(faulty, work, timeout=2.0)
    assert hung.status == 504
    assert "longer than 2 s" in json.loads(hung.body)["error"]
    assert took < 10
    assert after == 200
    assert deaths == 1


def test_a_request_may_have_longer_than_others(faulty):
    """Objects that are processed as they arrive may take longer than who waits for an answer."""

    async def work(pool, notes):
        patient = await pool.ask(request(222.0), 60.0)
        other = await pool.ask(request(777.0))
        return patient.status, other.status

    assert within(faulty, work, timeout=0.3) == (200, 504)


def test_two_processes_share_the_work(faulty):
    async def work(pool, notes):
        await asyncio.gather(*(pool.ask(request(222.0)) for _ in range(4)))
        return notes.batches

    assert len(within(faulty, work, devices=("cpu", "cpu"), batch_size=1)) == 4


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        (lambda p: (p / "weights.safetensors").write_bytes(b"x"), DataError, "its checksum differs"),
        (lambda p: (p / "model.json").write_text("{"), DataError, "model.json"),
        (lambda p: (p / "golden" / "responses.json").write_text((p / "golden" / "responses.json").read_text().replace('"probability": 0.', '"probability": 1.')), DataError, "answers golden request 1 otherwise"),
        (lambda p: (p / "golden" / "requests.json").write_text('[{"inputs": [[1]]}]'), DataError, "does not answer the golden requests"),
        (lambda p: (p / "code" / "faultynets" / "__init__.py").write_text("import nothing_like_this"), NotFound, "nothing_like_this"),
        (lambda p: (p / "code" / "faultynets" / "__init__.py").write_text("import os; os._exit(3)"), RunFailed, "ended with status 3"),
    ],
)  # fmt: skip
def test_a_package_that_does_not_load_says_why(tmp_path, damage, error, words):
    folder = write_faulty_package(tmp_path)
    damage(folder)
    with pytest.raises(error, match=words):
        within(folder, None)
