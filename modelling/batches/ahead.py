"""Work on what comes next while the present item is in use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

Item = TypeVar("Item")
_END = object()


def ahead(source: Iterable[Item], *, depth: int = 1) -> Iterator[Item]:
    """Yield the items of ``source`` in order, drawn by a thread that is at most ``depth`` items ahead.

    An error in ``source`` is raised where its item would have come. A consumer that stops early stops the
    thread, too. Thread-local state (:class:`torch.inference_mode`, for one) must be set by ``source`` itself.
    """
    queue: Queue[tuple[Any, BaseException | None]] = Queue(depth)
    stopped = Event()

    def put(item: Any, error: BaseException | None = None) -> None:
        while not stopped.is_set():
            try:
                return queue.put((item, error), timeout=0.1)
            except Full:
                continue

    def draw() -> None:
        try:
            for item in source:
                put(item)
                if stopped.is_set():
                    return
            put(_END)
        except BaseException as error:
            put(_END, error)

    thread = Thread(target=draw, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = queue.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stopped.set()
        while thread.is_alive():
            try:
                queue.get_nowait()
            except Empty:
                thread.join(0.05)
