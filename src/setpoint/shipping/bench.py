"""What models cost: latency, throughput, memory, size; each measured in a process of its own."""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from setpoint.errors import ModelError
from setpoint.shipping.manifest import NAME, read_manifest
from setpoint.shipping.reading import read_inputs
from setpoint.shipping.shipped import BATCH

CALLS = 200
"""At batch 1, over inputs of all lengths in turn."""
SECONDS = 2.0
"""That each kind of measurement goes on for at most, once it has begun."""
MOST = 2000
"""Inputs that are read."""


@dataclass(frozen=True)
class Cost:
    """What one model costs.

    Attributes:
        model: its folder, or the run's folder with ``teacher`` or ``student``.
        runtime: ``onnx`` or ``pytorch``.
        dtype: of its weights.
        bytes: of the file of its weights.
        p50_ms: the median time of one input alone, from the raw input to the answer.
        p95_ms: what 95 % of them are below.
        per_second: inputs labelled in a second, in batches.
        batch_size: of those batches.
        memory_bytes: what the process grew by, with the model loaded and asked.
        metric: the name of the headline metric.
        score: its value on the validation split.
    """

    model: str
    runtime: str
    dtype: str
    bytes: int
    p50_ms: float
    p95_ms: float
    per_second: float
    batch_size: int
    memory_bytes: int
    metric: str
    score: float

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def bench(
    paths: Sequence[str | Path], data: str | Path | None = None, batch_size: int = BATCH, threads: int | None = None
) -> list[Cost]:
    """Measure exported students, and the teachers and students of runs.

    Args:
        paths: folders that ``setpoint export`` wrote, and folders of runs.
        data: a file of inputs; unless given the validation split of the first run, or of that which an export lies in.
        batch_size: of the throughput.
        threads: for each model; as many as there are cores unless given.

    Raises:
        SetpointError: a folder is neither, or there are no inputs.
    """
    folders = [Path(path) for path in paths]
    inputs = find_inputs(folders, data)
    jobs: list[tuple[Path, str]] = []
    for folder in folders:
        if (folder / NAME).is_file():
            read_manifest(folder)
            jobs.append((folder, "export"))
        elif (folder / "recipe.json").is_file():
            jobs += [(folder, "teacher"), (folder, "student")]
        else:
            raise ModelError(f"'{folder}' has neither {NAME} nor recipe.json", "give an exported folder, or a run")
    from tqdm.auto import tqdm

    found = []
    for folder, what in tqdm(jobs, desc="bench", unit="model", delay=2, leave=False, disable=None):
        # A process for each: memory that one has taken would be there for the next.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            found.append(pool.submit(measure, folder, what, inputs, batch_size, threads).result())
    return found


def find_inputs(folders: Sequence[Path], data: str | Path | None) -> list[Any]:
    """Raw inputs to measure with, as ``bench`` takes them; 2000 at most."""
    if data is not None:
        found = [given.value for given in islice(read_inputs([data]), MOST)]
        if not found:
            raise ModelError(f"there are no inputs in {data}", "give a file with some")
        return found
    runs = [run for folder in folders for run in (folder, folder.parent.parent) if (run / "recipe.json").is_file()]
    if not runs:
        raise ModelError("no run is given to take inputs from", "give a file of inputs with --data")
    from setpoint.shipping.run_models import validation_inputs

    return validation_inputs(runs[0], MOST)


def measure(folder: Path, what: str, inputs: list[Any], batch_size: int, threads: int | None) -> Cost:
    """The cost of one model; what ``bench`` has a process do."""
    import transformers

    from setpoint.shipping.run_models import prepare

    transformers.utils.logging.disable_progress_bar()
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    open_it = prepare(folder, what, threads)
    before = memory()
    opened = open_it()
    checked = [opened.read(value, f"input {i}") for i, value in enumerate(inputs)]
    p50, p95 = latencies(opened.answer, checked)
    rate = throughput(opened.answer, checked, batch_size)
    grown = memory() - before
    return Cost(
        opened.name, opened.runtime, opened.dtype, opened.bytes, p50, p95, rate, batch_size, grown, opened.metric,
        opened.score(),
    )  # fmt: skip


Ask = Callable[[list[Any], int], Any]


def latencies(ask: Ask, checked: Sequence[Any]) -> tuple[float, float]:
    """Median and 95th percentile of the milliseconds of one input alone."""
    times: list[float] = []
    for number, one in enumerate(islice(cycle(checked), CALLS + 5)):
        start = time.perf_counter()
        ask([one], 1)
        if number >= 5:  # the first warm up
            times.append(1000 * (time.perf_counter() - start))
        if sum(times) > 1000 * SECONDS and len(times) >= 20:
            break
    return statistics.median(times), statistics.quantiles(times, n=20, method="inclusive")[-1]


def throughput(ask: Ask, checked: Sequence[Any], batch_size: int) -> float:
    """Inputs a second in batches of one size, in the order they come."""
    endless, count = cycle(checked), 0
    ask(list(islice(endless, batch_size)), batch_size)
    start = time.perf_counter()
    while (seconds := time.perf_counter() - start) < SECONDS:
        ask(list(islice(endless, batch_size)), batch_size)
        count += batch_size
    return count / seconds


def memory() -> int:
    """The bytes that this process has in memory; the most it ever had, where the system does not tell."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
