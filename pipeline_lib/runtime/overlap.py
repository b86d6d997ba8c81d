"""Iterators that overlap the work for consecutive items."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


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
