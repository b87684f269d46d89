"""What finding the temperature costs, beside one ordinary run and beside the loops that people write today.

    python benchmarks/tuning_cost.py recipes/conll2003-5m.yaml --out docs/results/tuning-cost

- *ordinary*: one student, the teacher online at each step, the recipe's temperature; one half of it before, the other
  after Setpoint's.
- *setpoint*: the teacher once, a search over eight temperatures and two weights α, finalists with three seeds, and the
  student with what was found.
- *loop*: the same grid as people search it today, an ordinary run for each of the sixteen pairs. One ordinary run is
  timed and taken sixteen times; the students, which a live teacher and a store train alike, are trained from the store.
- *TextBrewer with Optuna*: its own distiller with the same teacher, student, batches, steps, temperature and α; one
  trial is timed and taken sixteen times. Run where the package can be imported (``pip install --no-deps --target DIR
  textbrewer torchdistill``, and DIR on PYTHONPATH); torchdistill needs torchvision.

All are trained in one process, in turn; where others use the machine too, with one thread, the seconds of CPU compare.
What each way chose is trained again with seeds that none has seen, and scored on the validation split, by which both
ways chose; the test split is not read. Writes OUT.md and OUT.json; what is done is kept in the run folder, and a killed
benchmark goes on from there.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from setpoint import evaluation, models, stages, teachers
from setpoint.files import read_json, write_atomic, write_json
from setpoint.job import Job, open_job
from setpoint.maths.stats import mean_interval, paired_interval
from setpoint.recipe import Recipe
from setpoint.recipe_file import load_recipe, parse_recipe
from setpoint.run_folder import RunFolder, begin
from setpoint.targets.teacher import FrozenTeacher
from setpoint.tuning.search import find
from setpoint.tuning.student import Bench, full_steps

TEMPERATURES = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
ALPHAS = (0.5, 0.9)
FRESH = (10, 11, 12)
"""Seeds that no search has seen."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--budget", default="1.0x")
    parser.add_argument("--run-dir", type=Path, default=Path("runs/tuning-cost"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    recipe = load_recipe(options.recipe, ["seeds=[0]", "hard_baseline=false", *options.overrides])
    kept = options.run_dir / "figures.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = read_json(kept) if kept.exists() else {}
    for name, work in {
        "setpoint": lambda: beside(recipe, options.run_dir, options.budget),
        "textbrewer": lambda: textbrewer(recipe, options.run_dir / "textbrewer"),
        "torchdistill": torchdistill,
        "loop": lambda: loop(recipe, options.run_dir / "loop"),
        "fresh": lambda: fresh(recipe, options.run_dir, figures),
    }.items():
        if name not in figures:
            figures[name] = work()
            write_json(kept, figures)
            print(name, figures[name], flush=True)
    figures |= {"threads": torch.get_num_threads(), "recipe": recipe.name}
    figures["command"] = "python benchmarks/tuning_cost.py " + " ".join(sys.argv[1:])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out.with_suffix(".json"), figures)
    write_atomic(options.out.with_suffix(".md"), page(figures))


# -------------------------------------------------------------------------------------------------- the ways


def beside(recipe: Recipe, folder: Path, budget: str) -> dict[str, Any]:
    """An ordinary run, data and models read included, in two halves around Setpoint's, for a machine's speed drifts."""
    live = parse_recipe(recipe.model_dump() | {"targets": {"kind": "live"}})
    for name in ("ordinary", "setpoint"):  # what a killed benchmark left would be no work on the clock
        shutil.rmtree(folder / name, ignore_errors=True)
    start = clock()
    with RunFolder(folder / "ordinary") as run_folder:
        job = open_job(live, run_folder)
        teacher = teachers.load_teacher(job)
        targets = teachers.prepare_targets(job, teacher)
        half = full_steps(Bench(job, teacher, targets, job.task.metric)) // 2
        scratch = job.scratch("student/seed-0")
        begin(scratch, stages.student_origin(job, True, 0))
        stages.advance_student(job, teacher, targets, 0, scratch, "ordinary", until=half)
        first = since(start)
        found = setpoint(recipe, folder / "setpoint", budget)
        start = clock()
        stages.train_student(job, teacher, targets, 0, "student/seed-0")
        second = since(start)
    return {"ordinary": {kind: first[kind] + second[kind] for kind in first}, "halves": [first, second], **found}


def setpoint(recipe: Recipe, folder: Path, budget: str) -> dict[str, Any]:
    """Seconds of the search, targets and data included, and of the student with what it found."""
    search = {"temperature": list(TEMPERATURES), "objective.alpha": list(ALPHAS)}
    tuned = parse_recipe(recipe.model_dump() | {"tune": {"search": search, "budget": budget}})
    start = clock()
    with RunFolder(folder) as run_folder:  # as ``setpoint run`` goes, but for the test split and the report
        job = open_job(tuned, run_folder)
        teacher = teachers.load_teacher(job)
        targets = teachers.prepare_targets(job, teacher)
        outcome = find(job, teacher, targets)
        searched = since(start)
        stages.train_student(replace(job, recipe=outcome.recipe), teacher, targets, 0, "student/seed-0")
    total = since(start)
    found = outcome.as_json()
    chosen = found["candidates"][outcome.verdict.chosen]["values"]
    return {
        **total, "search": searched, "predicted": found["seconds"], "plan": found["plan"],
        "sentence": outcome.verdict.sentence, "chosen": chosen,
    }  # fmt: skip


def loop(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """The best of the grid by one whole training each, on the validation split."""
    cells = {f"T = {t:g}, α = {a:g}": cell(recipe, t, a) for t in TEMPERATURES for a in ALPHAS}
    scores = students(recipe, folder, cells, (0,))
    best = max(scores, key=lambda name: scores[name][0])
    return {"scores": {name: values[0] for name, values in scores.items()}, "best": best}


def fresh(recipe: Recipe, folder: Path, figures: dict[str, Any]) -> dict[str, list[float]]:
    """What each way chose, with seeds that none has seen."""
    chosen = figures["setpoint"]["chosen"]
    pairs = {"loop": figures["loop"]["best"], "setpoint": _name(*_pair(chosen)), "default": _name(4.0, 0.9)}
    cells = {}
    for pair in pairs.values():
        t, a = (float(part.split(" = ")[1]) for part in pair.split(", "))
        cells[pair] = cell(recipe, t, a)
    scores = students(recipe, folder / "loop", cells, FRESH)
    return {way: scores[pair] for way, pair in pairs.items()}


def textbrewer(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """One trial of TextBrewer's ``GeneralDistiller``, as an Optuna objective calls it sixteen times."""
    try:
        library = importlib.import_module("textbrewer")
    except ImportError as error:
        return {"missing": str(error)}
    start = clock()
    with RunFolder(folder) as run_folder:
        job = open_job(recipe, run_folder)
        teacher = teachers.load_teacher(job)
        student, processor = stages.build_student(job, teacher, 0)
        data, collate = job.training_data(processor), job.task.collate(processor)

        def batches(examples: list[Any]) -> dict[str, Any]:
            batch = collate(examples)
            batch.pop("example_id")
            return batch

        generator = torch.Generator().manual_seed(0)
        loader = torch.utils.data.DataLoader(
            data, recipe.train.batch_size, shuffle=True, collate_fn=batches, generator=generator
        )
        optimizer = torch.optim.AdamW(
            student.parameters(), recipe.train.learning_rate, weight_decay=recipe.train.weight_decay, fused=True
        )
        epochs = int(recipe.train.epochs)
        steps = epochs * len(loader)
        schedule = torch.optim.lr_scheduler.LambdaLR
        warmup = recipe.train.warmup * steps

        def rate(step: int) -> float:
            return min((step + 1) / max(warmup, 1), (steps - step) / max(steps - warmup, 1))

        def adapted(batch: Any, outputs: Any) -> dict[str, Any]:
            return {"logits": outputs.logits, "logits_mask": (batch["labels"] != -100).float(), "losses": outputs.loss}

        alpha, t = recipe.objective.alpha, recipe.temperature.of_teacher
        distiller = library.GeneralDistiller(
            library.TrainingConfig(output_dir=str(folder), ckpt_frequency=1, log_dir=None, device="cpu"),
            library.DistillationConfig(
                temperature=t, kd_loss_type="ce", kd_loss_weight=alpha, hard_label_weight=1 - alpha
            ),
            teacher.source.model, student, adapted, adapted,
        )  # fmt: skip
        with distiller:
            distiller.train(
                optimizer, loader, num_epochs=epochs, scheduler_class=schedule, scheduler_args={"lr_lambda": rate}
            )
        return since(start) | {"score": validation(job, student, processor)}


def torchdistill() -> dict[str, str]:
    """Whether its distillation can be imported here at all."""
    try:
        importlib.import_module("torchdistill.core.distillation")
    except ImportError as error:
        return {"missing": str(error)}
    return {"missing": "it can be imported, and this benchmark has no run of it"}


# -------------------------------------------------------------------------------------------------- parts


def clock() -> tuple[float, float]:
    """Now, by the wall and by the seconds of CPU that this process has had."""
    return time.perf_counter(), time.process_time()


def since(start: tuple[float, float]) -> dict[str, float]:
    """Seconds since then, of both kinds."""
    wall, cpu = clock()
    return {"seconds": wall - start[0], "cpu": cpu - start[1]}


def cell(recipe: Recipe, temperature: float, alpha: float) -> Recipe:
    """The recipe with a temperature and a weight."""
    objective = recipe.objective.model_dump() | {"alpha": alpha}
    return parse_recipe(recipe.model_dump() | {"temperature": temperature, "objective": objective})


def students(recipe: Recipe, folder: Path, cells: dict[str, Recipe], seeds: tuple[int, ...]) -> dict[str, list[float]]:
    """Train each cell with each seed, once, and score it on the validation split."""
    scores: dict[str, list[float]] = {}
    with RunFolder(folder) as run_folder:
        job = open_job(recipe, run_folder)
        teacher = teachers.load_teacher(job)
        targets = teachers.prepare_targets(job, teacher)
        for name, changed in cells.items():
            one = replace(job, recipe=changed)
            for seed in seeds:
                where = f"{name.replace(' ', '').replace(',', '-')}/seed-{seed}"
                stages.train_student(one, teacher, targets, seed, where)
                scores.setdefault(name, []).append(_once(one, where, lambda job=one, w=where: _saved(job, w)))
    return scores


def _once(job: Job, where: str, work: Callable[[], float]) -> float:
    kept = job.path / where / "validation.json"
    if not kept.exists():
        write_json(kept, {"score": work()})
    return float(read_json(kept)["score"])


def _saved(job: Job, where: str) -> float:
    model = job.task.model_class().from_pretrained(job.path / where)
    return validation(job, model, models.load_tokenizer(str(job.path / where), "student"))


def validation(job: Job, model: torch.nn.Module, processor: Any) -> float:
    """The task's metric on the whole validation split."""
    examples = job.encoded("validation", processor)
    source = FrozenTeacher(model.eval(), job.splits.labels, name="student")
    rows = evaluation.predict(source, examples, job.task.collate(processor))
    return float(job.task.metrics(rows, evaluation.label_rows(examples), job.splits.labels)[job.task.metric])


def _pair(chosen: dict[str, Any]) -> tuple[float, float]:
    [t] = [float(value) for name, value in chosen.items() if name.startswith("temperature")]
    return t, float(chosen["objective.alpha"])


def _name(t: float, alpha: float) -> str:
    return f"T = {t:g}, α = {alpha:g}"


def page(figures: dict[str, Any]) -> str:
    """The table, in Markdown."""
    found, trials = figures["setpoint"], len(TEMPERATURES) * len(ALPHAS)
    ordinary, brewer, plan, predicted = found["ordinary"], figures["textbrewer"], found["plan"], found["predicted"]
    rows = [
        ("one ordinary run, teacher online", ordinary, 1, ""),
        ("**Setpoint: targets, search and student**", found, 1, _name(*_pair(found["chosen"]))),
        (f"the loop: {trials} ordinary runs", ordinary, trials, figures["loop"]["best"]),
    ]
    if "seconds" in brewer:
        rows.append((f"TextBrewer with Optuna: {trials} of its runs", brewer, trials, "not run to its end"))
    lines = [
        "# What finding the temperature costs", "",
        f"`{figures['recipe']}`: eight temperatures × two weights α, finalists with {plan['repeats']} seeds;"
        f" {figures['threads']} CPU thread(s). One half of the ordinary run was timed before Setpoint's, the other"
        f" after it: {found['halves'][0]['seconds']:.0f} and {found['halves'][1]['seconds']:.0f} s.", "",
        "| | seconds | of CPU | ordinary runs, by the clock | by CPU | chosen |", "|---|---|---|---|---|---|",
        *(
            f"| {name} | {n * took['seconds']:,.0f} | {n * took['cpu']:,.0f} |"
            f" {n * took['seconds'] / ordinary['seconds']:.2f} | {n * took['cpu'] / ordinary['cpu']:.2f} | {chosen} |"
            for name, took, n, chosen in rows
        ), "",
        f"Of Setpoint's {found['seconds']:.0f} s the search with its targets took {found['search']['seconds']:.0f} s;"
        f" predicted: an ordinary run {predicted['ordinary']:.0f} s, targets {predicted['targets']:.0f} s, search"
        f" {predicted['search']:.0f} s, student {predicted['student']:.0f} s. It trained {plan['sizes']} candidates to"
        f" {plan['rungs']} of {plan['full_steps']} steps.", "",
        f"It is {trials * ordinary['seconds'] / found['seconds']:.1f} times as fast as the loop.", "",
        f"It said: *{found['sentence']}*", "",
        "Each pair of the loop, trained to the end with one seed; validation F1:", "",
        "| T | " + " | ".join(f"α = {a:g}" for a in ALPHAS) + " |", "|---|" + "---|" * len(ALPHAS),
        *(
            f"| {t:g} | " + " | ".join(f"{figures['loop']['scores'][_name(t, a)]:.4f}" for a in ALPHAS) + " |"
            for t in TEMPERATURES
        ), "",
        "What each chose, trained to the end with three seeds that no search had seen; validation F1, 95 % intervals:",
        "", "| | F1 | loop minus this |", "|---|---|---|",
    ]  # fmt: skip
    for way, scores in figures["fresh"].items():
        one, lost = mean_interval(scores), paired_interval(figures["fresh"]["loop"], scores)
        difference = "" if way == "loop" else f"{lost.mean:+.4f} ({lost.low:+.4f} … {lost.high:+.4f})"
        lines.append(f"| {way} | {one.mean:.4f} ({one.low:.4f} … {one.high:.4f}) | {difference} |")
    for name, peer in (("TextBrewer", brewer), ("torchdistill", figures["torchdistill"])):
        if "missing" in peer:
            lines += ["", f"{name} cannot run the task here: {peer['missing']}."]
        else:
            ours = figures["loop"]["scores"][_name(4, 0.9)]
            lines += [
                "",
                f"One run of {name} at T = 4, α = 0.9 took {peer['cpu']:.0f} s of CPU, its student scored"
                f" {peer['score']:.4f} on the validation split (the loop's: {ours:.4f}).",
            ]
    return "\n".join([*lines, "", f"Command: `{figures['command']}`", ""])


if __name__ == "__main__":
    main()
