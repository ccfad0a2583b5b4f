"""Each request has a line, soon, and no burst of lines keeps requests waiting."""

import asyncio
import io
import json

from ai4sdk.serving.access import AccessLog


def test_lines_are_written_by_and_by():
    async def run():
        stream = io.StringIO()
        log = AccessLog(stream)
        sizes = []
        for number in range(120):
            log.add(0.5 + number, {"path": f"/{number}"})
            sizes.append(stream.getvalue().count("\n"))
        await asyncio.sleep(0.3)
        return sizes, stream.getvalue().splitlines()

    sizes, lines = asyncio.run(run())
    assert sorted(set(sizes)) == [0, 50, 100]
    assert [json.loads(line)["path"] for line in lines] == [f"/{number}" for number in range(120)]
    assert json.loads(lines[1])["time"] == "1970-01-01T00:00:01.500+00:00"


def test_a_stream_that_takes_no_more_loses_lines_alone():
    async def run():
        stream = io.StringIO()
        stream.close()
        log = AccessLog(stream)
        for _ in range(60):
            log.add(0, {})
        log.flush()

    asyncio.run(run())
