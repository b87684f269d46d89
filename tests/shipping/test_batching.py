"""Batches of what many tasks submit: full or in time, in order, each answer to its asker."""

import asyncio
import threading
import time

import pytest

from setpoint.shipping.batching import Batcher, Busy


class Recorder:
    """Doubles numbers, and remembers the batches; waits while it is told to."""

    def __init__(self):
        self.batches, self.threads, self.go = [], set(), threading.Event()
        self.go.set()

    def __call__(self, batch):
        self.threads.add(threading.get_ident())
        self.batches.append(batch)
        self.go.wait(5)
        if "bad" in batch:
            raise ValueError("bad")
        return [2 * x for x in batch]


def batcher(run, most=4, delay=60.0, waiting=100):
    return Batcher(run, most=most, delay=delay, waiting=waiting)


def test_a_full_batch_does_not_wait():
    async def work():
        run = Recorder()
        async with batcher(run) as one:
            answers = await asyncio.wait_for(asyncio.gather(*(one.submit([i]) for i in range(8))), 5)
        return run, answers

    run, answers = asyncio.run(work())
    assert answers == [[2 * i] for i in range(8)]
    assert run.batches == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert len(run.threads) == 1
    assert run.threads != {threading.get_ident()}


def test_what_is_not_full_waits_for_the_delay_and_no_longer():
    async def work():
        run = Recorder()
        async with batcher(run, delay=0.05) as one:
            start = time.perf_counter()
            first = asyncio.create_task(one.submit([1]))
            await asyncio.sleep(0.02)
            await asyncio.gather(first, one.submit([2]))
            return run.batches, time.perf_counter() - start

    batches, seconds = asyncio.run(work())
    assert batches == [[1, 2]]
    assert 0.045 < seconds < 0.5


def test_what_came_while_the_model_ran_does_not_wait_again():
    async def work():
        run = Recorder()
        run.go.clear()
        async with batcher(run, delay=0.01) as one:
            tasks = [asyncio.create_task(one.submit([0]))]
            await asyncio.sleep(0.05)
            tasks += [asyncio.create_task(one.submit([i])) for i in range(1, 7)]
            await asyncio.sleep(0.05)
            assert one.waiting == 6
            run.go.set()
            await asyncio.gather(*tasks)
        return run.batches

    assert asyncio.run(work()) == [[0], [1, 2, 3, 4], [5, 6]]


def test_a_request_of_many_is_cut_and_put_together_again():
    async def work():
        run = Recorder()
        async with batcher(run, delay=0.01) as one:
            return await asyncio.gather(one.submit(list(range(10))), one.submit([]), one.submit([7])), run.batches

    answers, batches = asyncio.run(work())
    assert answers == [[2 * i for i in range(10)], [], [14]]
    assert max(map(len, batches)) == 4


def test_a_failure_is_that_of_its_batch_alone():
    async def work():
        run = Recorder()
        async with batcher(run, most=2, delay=0.01) as one:
            return await asyncio.gather(
                one.submit(["bad"]), one.submit([1]), one.submit([2]), one.submit([3]), return_exceptions=True
            )

    bad, neighbour, *good = asyncio.run(work())
    assert isinstance(bad, ValueError)
    assert isinstance(neighbour, ValueError)
    assert good == [[4], [6]]


def test_a_wrong_number_of_answers_is_a_failure_too():
    async def work():
        async with batcher(lambda batch: [], delay=0) as one:
            for _ in range(2):
                with pytest.raises(ValueError, match="zip"):
                    await one.submit([1])

    asyncio.run(work())


def test_too_much_waiting_is_refused():
    async def work():
        run = Recorder()
        run.go.clear()
        async with batcher(run, most=1, delay=0, waiting=2) as one:
            first = asyncio.create_task(one.submit([0]))
            await asyncio.sleep(0.05)
            rest = asyncio.create_task(one.submit([1, 2]))
            await asyncio.sleep(0)
            with pytest.raises(Busy):
                await one.submit([3])
            run.go.set()
            return await asyncio.gather(first, rest)

    assert asyncio.run(work()) == [[0], [2, 4]]


def test_leaving_answers_what_waits_and_takes_no_more():
    async def work():
        run = Recorder()
        async with batcher(run) as one:
            tasks = [asyncio.create_task(one.submit([i])) for i in range(6)]
            await asyncio.sleep(0)
        with pytest.raises(Busy):
            await one.submit([1])
        return await asyncio.gather(*tasks)

    assert asyncio.run(asyncio.wait_for(work(), 5)) == [[2 * i] for i in range(6)]


def test_an_asker_who_has_gone_costs_nothing():
    async def work():
        run = Recorder()
        async with batcher(run, delay=0.05) as one:
            gone, stays = asyncio.create_task(one.submit(["bad"])), asyncio.create_task(one.submit([1]))
            await asyncio.sleep(0)
            gone.cancel()
            return await stays, run.batches

    assert asyncio.run(work()) == ([2], [[1]])
