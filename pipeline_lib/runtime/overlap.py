"""Iterators that overlap the work for consecutive items."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
Found = TypeVar("Found")


def ahead(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """Produce items in a thread, up to `depth` of them ahead of the consumer."""
    source, end = iter(items), object()
    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(next, source, end) for _ in range(depth))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(thread.submit(next, source, end))
            yield item


def one_behind(items: Iterable[Callable[[], T]]) -> Iterator[T]:
    """Call each item after the next one was started, so that the device is busy while a result is awaited."""
    started = None
    for item in items:
        if started is not None:
            yield started()
        started = item
    if started is not None:
        yield started()


def map_ahead(pool: Executor, work: Callable[[T], Found], items: Iterable[T], most: int) -> Iterator[Found]:
    """Map items in order, with at most `most` in flight so that unconsumed results do not fill the memory."""
    waiting: deque[Future[Found]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
