"""Log lines as JSON objects, without what a foreign error's message may quote of a patient."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from datetime import UTC, datetime

VARIABLE = "NIGHTINGALE_LOG"
OURS = ("deploy", "fhir_adapter", "modelling", "validation", "dags")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and an error's class and place.

    The message of an error that is not ours is left out: a parser's message quotes what it parsed.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as JSON."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            fields["error"] = f"{type(error).__module__}.{type(error).__qualname__}"
            if type(error).__module__.split(".")[0] in OURS:
                fields["error_message"] = str(error)
            fields["at"] = [
                f"{frame.filename.rsplit('/site-packages/')[-1]}:{frame.lineno}"
                for frame in traceback.extract_tb(error.__traceback__)
            ]
        return json.dumps(fields, ensure_ascii=False)


def configure(environment: dict[str, str] | None = None) -> bool:
    """Send log lines to stderr as JSON where ``NIGHTINGALE_LOG=json`` asks for it; return whether it did."""
    variables = dict(os.environ) if environment is None else environment
    if variables.get(VARIABLE) != "json":
        return False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    # httpx tells whole addresses at INFO, query string and all.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return True
