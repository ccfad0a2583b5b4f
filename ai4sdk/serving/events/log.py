"""The log of a server of events: a JSON object a line, on stderr."""

from __future__ import annotations

import json
import logging
import time

__all__ = ["log_to_stderr"]


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        event = getattr(record, "event", None) or {"message": record.getMessage()}
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {"time": f"{stamp}.{record.msecs:03.0f}Z", "level": record.levelname.lower(), **event}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_to_stderr() -> None:
    """Write what happens to stderr from now on."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines())
    log = logging.getLogger("ai4sdk")
    log.setLevel(logging.INFO)
    log.handlers = [handler]
    log.propagate = False
