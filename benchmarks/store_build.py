"""What storing costs the teacher: a store's build against the teacher's forward passes alone, examples a second.

    python benchmarks/store_build.py recipes/conll2003.yaml

Both run in one process, in turn, with batches of one size. *Raw*: the model under ``torch.inference_mode`` on batches
that are collated beforehand, of examples sorted by length over the whole data, which is the least padding there can be.
*Build*: ``TargetStore.build``: reading, collating, checking, packing and writing to the disk included. On a machine
whose speed drifts the seconds of CPU, with one thread (OMP_NUM_THREADS=1), tell more than those of the clock. Last it
counts the padding of batches within shards beside that of batches over all data, and times a build without a teacher.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from setpoint.job import open_job
from setpoint.recipe_file import load_recipe
from setpoint.run_folder import RunFolder
from setpoint.stages import train_teacher
from setpoint.targets.fingerprint import Fingerprint
from setpoint.targets.store import TargetStore
from setpoint.teachers import load_teacher
from setpoint.types import valid_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--examples", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    recipe = load_recipe(options.recipe, [f"data.limit={options.examples}", *options.overrides])
    with tempfile.TemporaryDirectory() as folder, RunFolder(Path(folder) / "run") as run_folder:
        job = open_job(recipe, run_folder)
        train_teacher(job)
        teacher = load_teacher(job)
        data, collate = list(job.training_data(teacher.processor)), job.task.collate(teacher.processor)
        size, model = recipe.targets.batch_size, teacher.source.model.eval()
        by_length = sorted(data, key=lambda example: len(example.get("input_ids", ())))
        batches = [collate(by_length[i : i + size]) for i in range(0, len(data), size)]
        device = next(model.parameters()).device
        inputs = [{n: v.to(device) for n, v in batch.items() if teacher.source.takes(n)} for batch in batches]
        made_from = Fingerprint(teacher="this", tokenizer="this", preprocessing="this", data="this")

        def raw() -> None:
            with torch.inference_mode():
                for batch in inputs:
                    logits = model(**batch).logits
                logits.cpu()  # an accelerator may still be at it

        def build(number: int) -> None:
            place = Path(folder) / f"store-{number}"
            TargetStore.build(place, teacher.source, data, collate, made_from, batch_size=size, progress=False)

        raw()  # warms up
        ratios: dict[str, list[float]] = {"clock": [], "CPU": []}
        for number in range(options.rounds):
            times, cpu = {}, {}
            for kind in ("raw", "build") if number % 2 == 0 else ("build", "raw"):
                start, began = time.perf_counter(), time.process_time()
                raw() if kind == "raw" else build(number)
                times[kind], cpu[kind] = time.perf_counter() - start, time.process_time() - began
            ratios["clock"].append(times["raw"] / times["build"])
            ratios["CPU"].append(cpu["raw"] / cpu["build"])
            print(
                f"round {number}: raw {len(data) / times['raw']:.0f} examples a second, build"
                f" {len(data) / times['build']:.0f}, {100 * ratios['clock'][-1]:.1f} % of it by the clock,"
                f" {100 * ratios['CPU'][-1]:.1f} % by CPU",
                flush=True,
            )
        for kind, each in ratios.items():
            middle = 100 * statistics.median(each)
            print(f"by {kind}: median {middle:.1f} % ({100 * min(each):.1f} … {100 * max(each):.1f})")

        def padded(shard: int) -> int:
            lengths = [len(example.get("input_ids", ())) for example in data]
            parts = [sorted(lengths[at : at + shard]) for at in range(0, len(lengths), shard)]
            steps = [part[at : at + size] for part in parts for at in range(0, len(part), size)]
            return sum(max(step) * len(step) for step in steps)

        for shard in (1024, recipe.targets.shard_examples):
            print(f"shards of {shard}: {100 * (padded(shard) / padded(len(data)) - 1):.1f} % more tokens with padding")

        class Zeros:
            labels = teacher.source.labels

            def __call__(self, batch: dict) -> torch.Tensor:
                return torch.zeros(int(valid_rows(batch).sum()), len(self.labels))

        start = time.perf_counter()
        TargetStore.build(Path(folder) / "zeros", Zeros(), data, collate, made_from, batch_size=size, progress=False)
        print(f"without the teacher: {1e6 * (time.perf_counter() - start) / len(data):.0f} µs an example")


if __name__ == "__main__":
    main()
