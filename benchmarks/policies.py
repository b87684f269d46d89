"""Every published policy and divergence under equal budget, on an image task and a text task.

    python benchmarks/policies.py image --out docs/results/policies-image
    python benchmarks/policies.py text --out docs/results/policies-text
    python benchmarks/policies.py both --out docs/results/policies

Each method gets the same trials: three values of its weight α (for the tuned constant T: three temperatures), one
seed, scored on validation data; then three seeds at the best, with the test split read once by each. Same student,
data, order and steps throughout; the teacher's logits come from disk. Every finished run is kept in
``runs/policies-TASK.json``, so a benchmark that was stopped goes on where it was. ``both`` writes what the two tables
beside OUT say of each method, a sentence each.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from setpoint import DistillationObjective, MetaTemperature, meta_step
from setpoint.catalogue import METHODS
from setpoint.files import read_json, write_atomic, write_json
from setpoint.held_out import hold_out
from setpoint.maths.stats import paired_interval
from setpoint.temperature import POLICIES, Constant, TemperaturePolicy
from setpoint.types import logits_of

SHARED = Path(__file__).parents[2] / "shared/data"
SEEDS = (0, 1, 2)
ALPHAS = (0.5, 0.9, 0.99)
HARD, TUNED = "hard labels", "tuned constant T"
ARGUMENTS: dict[str, dict[str, Any]] = {
    "linear": {"start": 8.0, "end": 1.0},
    "cosine": {"start": 8.0, "end": 1.0},
    "exponential": {"start": 8.0, "end": 1.0},
    "step": {"steps": {0.0: 4.0, 0.5: 2.0}},
}
"""Where a policy has no default of its own."""


@dataclass(frozen=True)
class Data:
    """One task: model inputs by split, labels, the teacher's logits on the training rows, how to build a student."""

    inputs: dict[str, list[Any]]
    labels: dict[str, Tensor]
    teacher: Tensor
    teacher_score: float
    collate: Callable[[list[Any]], dict[str, Tensor]]
    student: Callable[[int], nn.Module]
    epochs: int
    batch_size: int
    learning_rate: float


@dataclass(frozen=True)
class Trial:
    """One way to set the loss."""

    policy: Callable[[], TemperaturePolicy]
    divergence: str | None = None
    alpha: float = 0.9


def methods() -> dict[str, list[Trial]]:
    """For every method its three trials."""
    found = {HARD: [Trial(partial(Constant, 1.0), alpha=0.0)]}
    found["T = 1"] = [Trial(partial(Constant, 1.0), alpha=a) for a in ALPHAS]
    found["T = 4"] = [Trial(partial(Constant, 4.0), alpha=a) for a in ALPHAS]
    found[TUNED] = [Trial(partial(Constant, t)) for t in (1.5, 3.0, 6.0)]
    for method in METHODS:
        if method.kind == "temperature" and method.name not in ("constant", "softness"):
            make = partial(POLICIES[method.name], **ARGUMENTS.get(method.name, {}))
            found[method.name] = [Trial(make, alpha=a) for a in ALPHAS]
        if method.kind == "divergence" and method.name not in ("forward_kl", "soft_cross_entropy"):
            found[method.name] = [Trial(partial(Constant, 4.0), method.name, a) for a in ALPHAS]
    for share in (0.1, 0.3):
        make = partial(POLICIES["softness"], other_mass=share)
        found[f"softness, other mass {share}"] = [Trial(make, alpha=a) for a in ALPHAS]
    return found


def train(data: Data, trial: Trial, seed: int) -> nn.Module:
    """The hand-written loop, as the README has it."""
    student = data.student(seed)
    policy = trial.policy()
    policy.fit(data.teacher)
    objective = DistillationObjective(policy, trial.divergence, trial.alpha)
    parameters = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, data.learning_rate, weight_decay=0.01)
    if list(policy.parameters()):
        optimizer.add_param_group({"params": list(policy.parameters()), "weight_decay": 0.0})
    order = torch.Generator().manual_seed(seed)
    count = len(data.inputs["train"])
    examples, held = list(range(count)), []
    if isinstance(policy, MetaTemperature):
        examples, held = hold_out(examples, policy.held_out)
    steps = data.epochs * (count // data.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in optimizer.param_groups], steps, pct_start=0.1, anneal_strategy="linear"
    )
    student.train()
    step = 0
    for _ in range(data.epochs):
        shuffled = torch.randperm(count, generator=order)
        for chosen in shuffled[: count // data.batch_size * data.batch_size].split(data.batch_size):
            chosen = torch.tensor([examples[i] for i in chosen.tolist()])
            batch = data.collate([data.inputs["train"][i] for i in chosen.tolist()])
            if isinstance(policy, MetaTemperature) and (step + 1) % policy.every == 0:
                ahead = {
                    "inputs": batch,
                    "teacher_logits": data.teacher[chosen],
                    "labels": data.labels["train"][chosen],
                }
                some = torch.tensor(held)[torch.randperm(len(held), generator=order)[: data.batch_size]]
                aside = {
                    "inputs": data.collate([data.inputs["train"][i] for i in some.tolist()]),
                    "labels": data.labels["train"][some],
                }
                meta_step(objective, student, ahead, aside, schedule.get_last_lr()[0])
            loss = objective(
                student_logits=logits_of(student(**batch)), teacher_logits=data.teacher[chosen],
                labels=data.labels["train"][chosen], progress=step / steps,
            )  # fmt: skip
            optimizer.zero_grad()
            loss.total.backward()
            optimizer.step()
            schedule.step()
            step += 1
    return student


@torch.no_grad()
def score(data: Data, student: nn.Module, split: str) -> float:
    """Accuracy on a split."""
    student.eval()
    inputs, labels = data.inputs[split], data.labels[split]
    right = 0
    for first in range(0, len(inputs), 256):
        logits = logits_of(student(**data.collate(inputs[first : first + 256])))
        right += int((logits.argmax(-1) == labels[first : first + 256]).sum())
    return right / len(inputs)


def image() -> Data:
    """CIFAR-10 (JPEG copies): a ResNet-56's logits, and a small CNN that sees the images at half their size."""
    from PIL import Image

    from setpoint.vision import SmallConvNetConfig, SmallConvNetForImageClassification

    def pictures(file: str, count: int) -> tuple[Tensor, Tensor]:
        packed = np.load(SHARED / f"cifar10/{file}.npz")
        jpeg, offsets = packed["jpeg"], packed["offsets"]
        images = [np.asarray(Image.open(io.BytesIO(jpeg[offsets[i] : offsets[i + 1]].tobytes()))) for i in range(count)]
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(x).reshape(3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        pixels = nn.functional.avg_pool2d((pixels - mean) / std, 2)
        return pixels, torch.from_numpy(packed["label"][:count].astype(np.int64))

    logits = np.load(SHARED / "cifar10/teacher_logits_resnet.npz")
    pixels, labels = pictures("train", 5_000)
    test_pixels, test_labels = pictures("test", 10_000)
    teacher_right = logits["resnet56_test"].argmax(-1) == test_labels.numpy()

    def student(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return SmallConvNetForImageClassification(
            SmallConvNetConfig(num_channels=3, widths=(16, 32, 64), num_labels=10)
        )

    return Data(
        inputs={"train": list(pixels[:3_000]), "validation": list(pixels[3_000:]), "test": list(test_pixels)},
        labels={"train": labels[:3_000], "validation": labels[3_000:], "test": test_labels},
        teacher=torch.from_numpy(logits["resnet56_train"][:3_000]).float(),
        teacher_score=float(teacher_right.mean()),
        collate=lambda batch: {"pixel_values": torch.stack(batch)},
        student=student, epochs=20, batch_size=64, learning_rate=1e-2,
    )  # fmt: skip


def text() -> Data:
    """Banking77: a MiniLM-L6 fine-tuned by its recipe; the student reads the mean of that model's word embeddings."""
    from setpoint import stages, teachers
    from setpoint.evaluation import label_rows, predict
    from setpoint.job import open_job
    from setpoint.recipe_file import load_recipe
    from setpoint.run_folder import RunFolder

    recipe = load_recipe(Path(__file__).parents[1] / "recipes/banking77.yaml", ["seeds=[0]"])
    with RunFolder(Path("runs/banking77")) as folder:
        job = open_job(recipe, folder)
        stages.train_teacher(job)
        teacher = teachers.load_teacher(job)
        targets = teachers.prepare_targets(job, teacher)
        collate = job.task.collate(teacher.processor)
        examples = {split: job.encoded(split, teacher.processor) for split in ("train", "validation", "test")}
        labels = {split: torch.from_numpy(np.concatenate(label_rows(rows))) for split, rows in examples.items()}
        logits = torch.cat([targets(collate([example])) for example in examples["train"]])
        test_logits = np.concatenate(predict(teacher.source, examples["test"], collate))

    words = teacher.source.model.get_input_embeddings().weight.detach()
    means = {
        split: [words[torch.tensor(example["input_ids"][1:-1])].mean(0) for example in rows]
        for split, rows in examples.items()
    }

    def student(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.LayerNorm(words.shape[-1]), nn.Linear(words.shape[-1], 256), nn.ReLU(), nn.Dropout(0.1),
            nn.Linear(256, logits.shape[-1]),
        )  # fmt: skip

    return Data(
        inputs=means, labels=labels, teacher=logits,
        teacher_score=float((test_logits.argmax(-1) == labels["test"].numpy()).mean()),
        collate=lambda batch: {"input": torch.stack(batch)}, student=student, epochs=20, batch_size=64,
        learning_rate=3e-3,
    )  # fmt: skip


def measure(name: str, data: Data, kept: Path, only: list[str]) -> dict[str, Any]:
    """Run what is not done yet."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    done: dict[str, Any] = read_json(kept) if kept.exists() else {}

    def once(key: str, work: Callable[[], dict[str, float]]) -> dict[str, float]:
        if key not in done:
            done[key] = work()
            write_json(kept, done)
        return done[key]

    chosen = {method: trials for method, trials in methods().items() if not only or method in only}
    bar = tqdm(total=sum(len(trials) + len(SEEDS) for trials in chosen.values()), desc=name, unit="run")
    table = {}
    for method, trials in chosen.items():

        def tried(trial: Trial) -> dict[str, float]:
            start = time.perf_counter()
            student = train(data, trial, seed=100)
            return {"validation": score(data, student, "validation"), "seconds": time.perf_counter() - start}

        def final(trial: Trial, seed: int) -> dict[str, float]:
            return {"test": score(data, train(data, trial, seed), "test")}

        validation = []
        for number, trial in enumerate(trials):
            validation.append(once(f"{method} / trial {number}", partial(tried, trial))["validation"])
            bar.update()
        best = int(np.argmax(validation))
        scores = []
        for seed in SEEDS:
            scores.append(once(f"{method} / trial {best} / seed {seed}", partial(final, trials[best], seed))["test"])
            bar.update()
        table[method] = {"alpha": trials[best].alpha, "policy": repr(trials[best].policy()), "test": scores}
        table[method]["validation"] = validation
    seconds = float(np.median([value["seconds"] for value in done.values() if "seconds" in value]))
    return {"task": name, "teacher": data.teacher_score, "seconds": seconds, "methods": table}


def page(figures: dict[str, Any]) -> str:
    """The table, best first, and what each method is worth against the tuned constant T."""
    table = figures["methods"]
    reference, hard = table[TUNED]["test"], table[HARD]["test"]
    lines = [
        f"# Policies on {figures['task']}", "",
        f"Teacher {figures['teacher']:.4f}; a run takes {figures['seconds']:.0f} s. Test accuracy, means of"
        f" {len(SEEDS)} seeds; differences are paired by seed, with 95 % intervals (Student's t). No correction is made"
        " for the number of methods: of forty methods that do nothing two would seem to.", "",
        "| method | α | accuracy | against tuned T | against hard labels | |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for method, row in sorted(table.items(), key=lambda item: -float(np.mean(item[1]["test"]))):
        gain, over = paired_interval(row["test"], reference), paired_interval(row["test"], hard)
        verdict = "beats it" if gain.low > 0 else "worse" if gain.high < 0 else "no difference that can be told"
        against_tuned, said = ("", "") if method == TUNED else (_signed(gain), verdict)
        against_hard = "" if method == HARD else _signed(over)
        lines.append(
            f"| {method} | {row['alpha']:g} | {np.mean(row['test']):.4f} | {against_tuned} | {against_hard} | {said} |"
        )
    lines += ["", f"Command: `{figures['command']}`", ""]
    return "\n".join(lines)


def sentences(image_figures: dict[str, Any], text_figures: dict[str, Any]) -> str:
    """What the two tables say of each method."""
    about = {method.name: method for method in METHODS}
    lines = [
        "# What the methods are worth", "",
        "Each method against a tuned constant temperature (three values of T at α = 0.9), by the tables of"
        " [CIFAR-10](policies-image.md) and [Banking77](policies-text.md): mean difference in test accuracy of three"
        " seeds, in points. The divergences were run at T = 4, so what they change is seen against the row T = 4.", "",
        "| method | meant | on CIFAR-10 | on Banking77 | so |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for name in image_figures["methods"]:
        if name == TUNED:
            continue
        gains = [
            paired_interval(f["methods"][name]["test"], f["methods"][TUNED]["test"])
            for f in (image_figures, text_figures)
        ]
        told = [_verdict(gain) for gain in gains]
        better, worse = told.count("better"), told.count("worse")
        so = {
            (2, 0): "it beats a tuned constant T on both",
            (1, 0): "it beats a tuned constant T on one, and cannot be told from it on the other",
            (1, 1): "it helps on one and hurts on the other",
            (0, 0): "it does not beat a tuned constant T",
            (0, 1): "it does not beat a tuned constant T, and is worse on one",
            (0, 2): "it is worse than a tuned constant T on both",
        }[better, worse]
        shown = [f"{100 * gain.mean:+.2f}, {word}" for gain, word in zip(gains, told, strict=True)]
        meant = about[name].when if name in about else ""
        lines.append(f"| {name} | {meant} | {shown[0]} | {shown[1]} | {so} |")
    return "\n".join([*lines, "", "Command: `python benchmarks/policies.py both --out docs/results/policies`", ""])


def _verdict(gain: Any) -> str:
    return "better" if gain.low > 0 else "worse" if gain.high < 0 else "not told apart"


def _signed(interval: Any) -> str:
    return f"{interval.mean:+.4f} ({interval.low:+.4f} … {interval.high:+.4f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["image", "text", "both"])
    parser.add_argument("--only", nargs="*", default=[], help="these methods alone")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.task == "both":
        image_figures, text_figures = (
            read_json(options.out.with_name(f"{options.out.name}-{name}.json")) for name in ("image", "text")
        )
        write_atomic(options.out.with_suffix(".md"), sentences(image_figures, text_figures))
        return
    data = {"image": image, "text": text}[options.task]()
    names = {"image": "CIFAR-10", "text": "Banking77"}
    only = options.only and [HARD, TUNED, *options.only]
    figures = measure(names[options.task], data, Path("runs") / f"policies-{options.task}.json", only)
    figures["command"] = "python benchmarks/policies.py " + " ".join(sys.argv[1:])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out.with_suffix(".json"), figures)
    write_atomic(options.out.with_suffix(".md"), page(figures))


if __name__ == "__main__":
    main()
