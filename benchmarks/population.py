"""What a step of K students costs as a population, beside K students trained one by one by a plain loop.

    python benchmarks/population.py --out docs/results/population.md

A step is forward, loss, backward, clipping, AdamW and schedule on one batch of random inputs; the students have the
shapes of the recipes and K constant temperatures. The plain loop has a model, an optimiser and a schedule for each
student, as its own training would. The three ways take turns in each round; figures are medians over rounds.
"""

from __future__ import annotations

import argparse
import copy
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    Trainer,
    TrainingArguments,
    get_scheduler,
)

from setpoint import DistillationObjective
from setpoint.tuning.population import Population
from setpoint.types import logits_of, valid_rows
from setpoint.vision import SmallConvNetConfig, SmallConvNetForImageClassification


class MeanOfEmbeddings(nn.Module):
    """The mean of the words' embeddings, one hidden layer, 77 classes."""

    def __init__(self, vocabulary: int = 3000, width: int = 64) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width, padding_idx=0)
        self.hidden = nn.Linear(width, width)
        self.head = nn.Linear(width, 77)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits ``[B, 77]``."""
        mask = attention_mask.unsqueeze(-1)
        mean = (self.words(input_ids) * mask).sum(1) / mask.sum(1)
        return self.head(torch.relu(self.hidden(mean)))


def bert(kind: type, layers: int, width: int, heads: int, vocabulary: int, classes: int, frozen: bool = False) -> Any:
    model = kind(
        BertConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            num_labels=classes,
        )
    )
    model.base_model.embeddings.requires_grad_(not frozen)
    return model


def texts(sentences: int, tokens: int, vocabulary: int, classes: int, a_label_each: bool) -> dict[str, Tensor]:
    lengths = torch.randint(tokens // 2, tokens + 1, (sentences, 1))
    mask = (torch.arange(tokens) < lengths).long()
    ids = torch.randint(1, vocabulary, (sentences, tokens)) * mask
    labels = torch.randint(classes, (sentences, tokens)).masked_fill(mask == 0, -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels if a_label_each else labels[:, 0]}


def images() -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(64, 1, 8, 8), "labels": torch.randint(10, (64,))}


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], dict[str, Tensor]]]] = {
    "digits, convnet 8-16": (
        lambda: SmallConvNetForImageClassification(SmallConvNetConfig(widths=(8, 16), num_labels=10)),
        images,
    ),
    "Banking77-like, mean of embeddings": (MeanOfEmbeddings, lambda: texts(32, 16, 3000, 77, False)),
    "Banking77-like, BERT 1 layer, 64 wide": (
        lambda: bert(BertForSequenceClassification, 1, 64, 4, 3000, 77),
        lambda: texts(32, 16, 3000, 77, False),
    ),
    "banking77.yaml's shape: 1 layer, 384 wide, embeddings frozen": (
        lambda: bert(BertForSequenceClassification, 1, 384, 12, 30522, 77, frozen=True),
        lambda: texts(32, 16, 30522, 77, False),
    ),
    "conll2003-5m.yaml's shape: 3 layers, 128 wide": (
        lambda: bert(BertForTokenClassification, 3, 128, 4, 30522, 9),
        lambda: texts(32, 24, 30522, 9, True),
    ),
}


def plain_loop(
    models: list[nn.Module], objectives: list[DistillationObjective], arguments: TrainingArguments, batch: dict
) -> Callable[[Tensor], None]:
    """A step of each student with an optimiser of its own."""
    optimisers, schedules = [], []
    for model in models:
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
        decays = set(Trainer.get_decay_parameter_names(None, model))
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        groups = [
            {"params": [p for name, p in trained if name in decays], "weight_decay": arguments.weight_decay},
            {"params": [p for name, p in trained if name not in decays], "weight_decay": 0.0},
        ]
        optimisers.append(kind(groups, **settings))
        schedules.append(get_scheduler("linear", optimisers[-1], 0, 1000))
    inputs, rows = {name: value for name, value in batch.items() if name != "labels"}, valid_rows(batch)

    def step(teacher: Tensor) -> None:
        for model, objective, optimiser, schedule in zip(models, objectives, optimisers, schedules, strict=True):
            logits = logits_of(model.train()(**inputs))[rows]
            objective(student_logits=logits, teacher_logits=teacher, labels=batch["labels"][rows]).total.backward()
            nn.utils.clip_grad_norm_(model.parameters(), arguments.max_grad_norm)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()

    return step


def measure(name: str, students: int, rounds: int, seconds: float, folder: str, device: str) -> dict[str, Any]:
    make, make_batch = CASES[name]
    torch.manual_seed(0)
    models = [make().to(device) for _ in range(students)]
    batch = {key: value.to(device) for key, value in make_batch().items()}
    arguments = TrainingArguments(folder, optim="adamw_torch", weight_decay=0.01, report_to="none")
    fused = TrainingArguments(folder, optim="adamw_torch_fused", weight_decay=0.01, report_to="none")
    with torch.no_grad():
        teacher = logits_of(make().to(device).eval()(**{k: v for k, v in batch.items() if k != "labels"}))
    teacher = 5 * teacher[valid_rows(batch)]

    def objectives() -> list[DistillationObjective]:
        return [DistillationObjective(temperature=1.0 + i) for i in range(students)]

    def population(mode: Any) -> Population:
        return Population(models, objectives(), arguments, 1000, sample=batch, mode=mode)

    taken = population("auto").how
    vmap, each = population("vmap"), population("one by one")
    ways: dict[str, Callable[[Tensor], Any]] = {
        "plain": plain_loop(models, objectives(), arguments, batch),
        "fused": plain_loop(copy.deepcopy(models), objectives(), fused, batch),
        "vmap": lambda teacher: vmap.step(batch, teacher),
        "each": lambda teacher: each.step(batch, teacher),
    }

    def timed(step: Callable[[Tensor], Any], steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            step(teacher)
        if device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / steps

    for step in ways.values():
        timed(step, 1)
    steps = max(2, round(seconds / timed(ways["plain"], 1)))
    times: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in list(ways) if number % 2 == 0 else list(ways)[::-1]:
            times[way].append(timed(ways[way], steps) / students)
    assert vmap.how.startswith("vmap"), vmap.how
    against = {
        (way, base): [a / b for a, b in zip(times[way], times[base], strict=True)]
        for way in ("vmap", "each")
        for base in ("plain", "fused")
    }
    return {
        "ms": {way: 1000 * statistics.median(values) for way, values in times.items()},
        "ratios": {key: (statistics.median(values), min(values), max(values)) for key, values in against.items()},
        "taken": taken.split(" (")[0],
        "weights": sum(p.numel() for p in models[0].parameters() if p.requires_grad),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="of the plain loop in each round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    where = torch.cuda.get_device_name() if options.device == "cuda" else f"{platform.machine()}, one thread of a CPU"
    lines = [
        "# A population beside one by one",
        "",
        f"Milliseconds a student and step on {where}, PyTorch {torch.__version__}: medians of {options.rounds} rounds",
        "in which the ways take turns, while others used the machine too. *Plain* is a loop with a model and an AdamW",
        "for each student, *fused* the same with PyTorch's fused AdamW; *vmap* and *one by one* are the two ways of a",
        "`Population`, which is fused. Ratios are medians (range) over rounds: below 1 the population is quicker.",
        "*Taken* is what the mode `auto` chose by itself, on one batch.",
        "",
        "| student | trained weights | K | plain | fused | vmap | one by one | vmap / plain | vmap / fused"
        " | one by one / plain | taken |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines[8:]))
    with tempfile.TemporaryDirectory() as folder:
        for name in CASES:
            for k in options.students:
                m = measure(name, k, options.rounds, options.seconds, folder, options.device)
                cells = [
                    name,
                    f"{m['weights']:,}",
                    k,
                    *(f"{m['ms'][w]:.2f}" for w in ("plain", "fused", "vmap", "each")),
                ]
                keys = (("vmap", "plain"), ("vmap", "fused"), ("each", "plain"))
                cells += ["{:.2f} ({:.2f} … {:.2f})".format(*m["ratios"][key]) for key in keys]
                lines.append(f"| {' | '.join(map(str, [*cells, m['taken']]))} |")
                print(lines[-1], flush=True)
    lines += ["", "Command: `python benchmarks/population.py --out docs/results/population.md`", ""]
    if options.out is not None:
        options.out.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
