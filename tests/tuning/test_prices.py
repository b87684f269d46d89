"""Prices: what is timed stands for a whole epoch, on a clock that counts padded pieces."""

import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from setpoint import stages, teachers
from setpoint.job import open_job
from setpoint.recipe_file import parse_recipe
from setpoint.run_folder import RunFolder
from setpoint.training import DistillationTrainer
from setpoint.tuning import prices, student


@pytest.fixture
def bench(ner, tmp_path):
    """Sentences of many lengths, grouped by them."""
    chance = random.Random(0)
    sentences = [["anna B-PER", "rome B-LOC", *["lives O"] * min(int(chance.expovariate(0.2)), 24)] for _ in range(160)]
    (tmp_path / "train.conll").write_text("\n\n".join("\n".join(words) for words in sentences) + "\n")
    train = ner["train"] | {"batch_size": 4, "epochs": 1, "arguments": {"train_sampling_strategy": "group_by_length"}}
    recipe = parse_recipe(ner | {"train": train, "data": ner["data"] | {"max_length": 30}}, folder=tmp_path)
    with RunFolder(tmp_path / "run") as folder:
        job = open_job(recipe, folder)
        stages.train_teacher(job)
        teacher = teachers.load_teacher(job)
        yield student.Bench(job, teacher, teachers.prepare_targets(job, teacher), "f1")


def test_an_epoch_has_the_steps_of_the_training(bench, monkeypatch):
    seen, real = [], DistillationTrainer.compute_loss

    def compute_loss(self, model, inputs, *args, **kwargs):
        seen.append((list(inputs["example_id"]), inputs["input_ids"].shape[1]))
        return real(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(DistillationTrainer, "compute_loss", compute_loss)
    _, processor = student.train_to(bench, bench.job.recipe, 0, 1, 12, lambda _: None)
    steps, longest = prices.epoch(bench, processor, 1)
    data = bench.job.encoded("train", processor)
    assert seen == [([data[i]["id"] for i in step], most) for step, most in zip(steps[:12], longest[:12], strict=True)]
    assert sorted(i for step in steps for i in step) == list(range(160))


class Clock:
    """A teacher, and the clock that it alone moves on: by the padded pieces of each batch."""

    def __init__(self, bench, monkeypatch):
        self.now, self.widths = 0.0, []
        self.teacher = replace(bench.teacher, source=self)
        monkeypatch.setattr(prices, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def __call__(self, batch):
        self.now += batch["input_ids"].numel()


def test_the_teacher_is_timed_on_steps_of_all_lengths(bench, monkeypatch):
    clock = Clock(bench, monkeypatch)
    steps, longest = prices.epoch(bench, bench.teacher.processor, 0)
    whole = np.mean([len(step) * most for step, most in zip(steps, longest, strict=True)])
    assert prices.teacher_seconds(bench, clock.teacher) == pytest.approx(whole, rel=0.1)


def test_a_step_is_priced_for_an_epoch_though_the_first_steps_are_of_long_sentences():
    chance = np.random.default_rng(0)
    sizes = np.concatenate([chance.integers(30, 60, 20), chance.integers(3, 60, 400)])
    ends = np.cumsum(0.02 + 0.001 * sizes)
    expected = 0.02 + 0.001 * sizes.mean()
    assert prices.pace(ends[:20], sizes.tolist()) == pytest.approx(expected)
    assert prices.pace(ends[:20]) > 1.15 * expected
