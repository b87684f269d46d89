"""Requests put together: what comes within a few milliseconds is computed as one batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Busy(Exception):
    """More is waiting than the batcher was told to bear."""


@dataclass
class _Waiting(Generic[Item, Answer]):
    item: Item
    arrived: float
    answer: asyncio.Future[Answer]


class Batcher(AbstractAsyncContextManager["Batcher[Item, Answer]"], Generic[Item, Answer]):
    """Calls a function with batches of what many tasks submit, in a thread of its own.

    A batch is taken when it is full, or when its first item has waited for ``delay``; while one is computed the next
    gathers. Items are taken in the order they came. On leaving, what waits is still answered.

    Args:
        run: batch → answers, as many and in order. It is never called twice at the same time.
        most: items of a batch.
        delay: seconds that an item waits for others at most, unless the function is busy.
        waiting: items that may wait; what comes beyond them is refused.

    Raises:
        Busy: by ``submit``, where too many wait already.

    Examples:
        >>> async def squares():
        ...     async with Batcher(lambda batch: [x * x for x in batch], most=8, delay=0.001, waiting=100) as batcher:
        ...         return await asyncio.gather(batcher.submit([1, 2]), batcher.submit([3]))
        >>> asyncio.run(squares())
        [[1, 4], [9]]
    """

    def __init__(self, run: Callable[[list[Item]], Sequence[Answer]], *, most: int, delay: float, waiting: int) -> None:
        self._run, self._most, self._delay, self._bound = run, most, delay, waiting
        self._waiting: deque[_Waiting[Item, Answer]] = deque()
        self._some, self._full = asyncio.Event(), asyncio.Event()
        self._closing = False

    @property
    def waiting(self) -> int:
        """How many items wait for a batch."""
        return len(self._waiting)

    async def __aenter__(self) -> Batcher[Item, Answer]:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="setpoint-model")
        self._worker = asyncio.create_task(self._work())
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._closing = True
        self._some.set()
        self._full.set()
        await self._worker
        self._thread.shutdown()

    async def submit(self, items: Sequence[Item]) -> list[Answer]:
        """The answers to some items, in order."""
        if self._closing or len(self._waiting) + len(items) > self._bound:
            raise Busy
        loop = asyncio.get_running_loop()
        mine = [_Waiting[Item, Answer](item, loop.time(), loop.create_future()) for item in items]
        self._waiting.extend(mine)
        if self._waiting:
            self._some.set()
        if len(self._waiting) >= self._most:
            self._full.set()
        return list(await asyncio.gather(*(one.answer for one in mine)))

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._some.wait()
            if not self._waiting:  # woken to close
                return
            left = self._waiting[0].arrived + self._delay - loop.time()
            if left > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._full.wait(), left)
            batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            self._settle()
            batch = [one for one in batch if not one.answer.done()]  # those whose asker has gone are done
            if batch:
                await self._answer(batch)

    def _settle(self) -> None:
        """Bring the events in line with what is left."""
        if len(self._waiting) < self._most and not self._closing:
            self._full.clear()
        if not self._waiting and not self._closing:
            self._some.clear()

    async def _answer(self, batch: list[_Waiting[Item, Answer]]) -> None:
        items = [one.item for one in batch]
        try:
            answers = await asyncio.get_running_loop().run_in_executor(self._thread, self._run, items)
            pairs = list(zip(batch, answers, strict=True))
        except Exception as error:  # theirs, who asked; the next batch may do better
            for one in batch:
                if not one.answer.done():
                    one.answer.set_exception(error)
            return
        for one, answer in pairs:
            if not one.answer.done():
                one.answer.set_result(answer)
