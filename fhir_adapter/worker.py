"""Decoding of untrusted bytes in a process of its own, with bounded memory and time.

A DICOM object of one megabyte can inflate to gigabytes or nest until the interpreter gives up; in a worker
with ``RLIMIT_AS`` such an object costs one worker and one quarantine row, never the night. The worker is
started once, serves many objects, and is replaced after a crash or a timeout.

Messages are a length, a JSON object and raw array bytes: nothing that comes back can be code.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import IO, Any, Self

import numpy as np

from fhir_adapter.errors import AdapterError, Refusal
from fhir_adapter.images.decode import DecodedImage, decode_image
from fhir_adapter.limits import Limits
from fhir_adapter.waveforms.dicom_ecg import read_dicom_ecg
from fhir_adapter.waveforms.signal import Signal
from validation.reasons import Reason

START_SECONDS = 120.0
MAX_ANSWER = 1_000_000_000


@dataclass(frozen=True)
class Task:
    """What a worker can do: a decoder, its result's class, and the reasons for its failures."""

    decode: Callable[[bytes, Limits], Any]
    result: type
    too_large: Reason
    unreadable: Reason


TASKS = {
    "image": Task(decode_image, DecodedImage, Reason.IMAGE_TOO_LARGE, Reason.IMAGE_UNREADABLE),
    "dicom-ecg": Task(read_dicom_ecg, Signal, Reason.ATTACHMENT_TOO_LARGE, Reason.ECG_UNREADABLE),
}


class DecodeWorker:
    """Runs one of :data:`TASKS` in another process: call it as ``decode(data, limits)``.

    Parameters
    ----------
    task
        Name of the task.
    limits
        ``worker_memory`` and ``worker_seconds``.
    """

    def __init__(self, task: str, limits: Limits) -> None:
        self._name = task
        self._task = TASKS[task]
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __call__(self, data: bytes, limits: Limits) -> Any:
        """Decode one object.

        Raises
        ------
        Refusal
            The decoder's own, or one for memory, time or a crash.
        """
        process = self._ready()
        assert process.stdin is not None  # noqa: S101 - opened with pipes
        deadline = time.monotonic() + limits.worker_seconds
        try:
            _send(process.stdin, asdict(limits), data)
            header, body = _receive_until(process, deadline)
        except TimeoutError:
            self.close()
            raise Refusal(self._task.unreadable, "decoding took too long") from None
        except (EOFError, OSError, ValueError):
            self.close()
            raise Refusal(self._task.too_large, "the decoding process died") from None
        kind = header.get("kind")
        if kind == "ok":
            return _unpack(self._task.result, header, body)
        if kind == "refusal":
            raise Refusal(Reason(header["reason"]), header.get("detail"))
        self.close()  # what it still holds would count against the next object
        raise Refusal(
            self._task.too_large if kind == "memory" else self._task.unreadable, header.get("detail")
        )

    def close(self) -> None:
        """End the worker."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _ready(self) -> subprocess.Popen[bytes]:
        """Return a worker that is alive and has its limits set."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
            [sys.executable, "-m", "fhir_adapter.worker", self._name, str(self._limits.worker_memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # decoders print what they find, and that may be a patient's
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"},
        )
        try:
            header, _ = _receive_until(self._process, time.monotonic() + START_SECONDS)
        except (TimeoutError, EOFError, OSError, ValueError):
            self.close()
            raise AdapterError("the decoding process did not start") from None
        if header.get("kind") != "ready":
            raise AdapterError("the decoding process did not start")
        return self._process


def _send(pipe: IO[bytes], header: dict[str, Any], body: bytes) -> None:
    text = json.dumps(header).encode()
    pipe.write(struct.pack("<QQ", len(text), len(body)) + text)
    pipe.write(body)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    n_text, n_body = struct.unpack("<QQ", _exactly(pipe, 16))
    header = json.loads(_exactly(pipe, n_text))
    return header, _exactly(pipe, n_body)


def _exactly(pipe: IO[bytes], count: int) -> bytes:
    data = pipe.read(count)
    if len(data) != count:
        raise EOFError
    return data


def _receive_until(process: subprocess.Popen[bytes], deadline: float) -> tuple[dict[str, Any], bytes]:
    """Receive one message before a deadline, without trusting its lengths."""
    assert process.stdout is not None  # noqa: S101 - opened with pipes
    descriptor = process.stdout.fileno()
    data = bytearray()
    wanted = 16
    while len(data) < wanted:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            raise TimeoutError
        piece = os.read(descriptor, min(1 << 20, wanted - len(data)))
        if not piece:
            raise EOFError
        data += piece
        if wanted == 16 and len(data) == 16:
            n_text, n_body = struct.unpack("<QQ", data)
            if n_text + n_body > MAX_ANSWER:
                raise ValueError("answer too large")
            wanted = 16 + n_text + n_body
    return json.loads(bytes(data[16 : 16 + n_text])), bytes(data[16 + n_text :])


def _pack(result: Any) -> tuple[dict[str, Any], bytes]:
    """Split a dataclass with one array into JSON and bytes."""
    header: dict[str, Any] = {"kind": "ok", "fields": {}}
    body = b""
    for item in fields(result):
        value = getattr(result, item.name)
        if isinstance(value, np.ndarray):
            header["array"] = {"name": item.name, "dtype": value.dtype.str, "shape": value.shape}
            body = np.ascontiguousarray(value).tobytes()
        else:
            header["fields"][item.name] = value
    return header, body


def _unpack(result: type, header: dict[str, Any], body: bytes) -> Any:
    array = header["array"]
    values = {
        key: tuple(value) if isinstance(value, list) else value for key, value in header["fields"].items()
    }
    values[array["name"]] = np.frombuffer(body, dtype=np.dtype(array["dtype"])).reshape(array["shape"])
    return result(**values)


def serve(task: Task, memory: int, *, requests: IO[bytes], answers: IO[bytes]) -> None:
    """Serve one object after another until the other side closes."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - not a file of ours
        held = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + memory, held + memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _send(answers, {"kind": "ready"}, b"")
    while True:
        try:
            limits, data = _receive(requests)
        except EOFError:
            return
        try:
            header, body = _pack(task.decode(data, Limits(**limits)))
        except Refusal as refusal:
            header, body = {"kind": "refusal", "reason": str(refusal.reason), "detail": refusal.detail}, b""
        except MemoryError:
            header, body = {"kind": "memory", "detail": "memory"}, b""
        except Exception as error:  # decoders raise what they like; the class is enough
            header, body = {"kind": "error", "detail": type(error).__name__}, b""
        del data
        _send(answers, header, body)


def main() -> None:
    """Serve on standard input and output."""
    # a decoder that prints must not write into the messages
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with contextlib.suppress(BrokenPipeError):
        serve(TASKS[sys.argv[1]], int(sys.argv[2]), requests=sys.stdin.buffer, answers=answers)


if __name__ == "__main__":
    main()
