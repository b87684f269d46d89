"""A student of CoNLL-2003 as its data move: fed the Brown corpus and the news groups, and sentences like its own.

    python benchmarks/drift.py recipes/conll2003-5m.yaml --out docs/results/drift.md

The run is validated on every other sentence of the development split; the control is the sentences between them, which
no model has seen and which are drawn from the same texts. Brown and the news groups have no labels: the teacher gives
them. `setpoint refresh` measures drift, distils where there is some, and asks its gate; the control is also forced
through, which tells what labels and training alone bring. Writes OUT.md and OUT.json; a killed benchmark goes on.
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import random
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from setpoint import pipeline
from setpoint.files import write_atomic, write_json
from setpoint.recipe_file import load_recipe
from setpoint.shipping.refresh import refresh

SENTENCES = 1500
WORDS = re.compile(r"\w+(?:[-']\w+)*|[^\w\s]")


def conll_halves(path: Path) -> tuple[str, str]:
    """The sentences of a CoNLL file in turn for the one and for the other."""
    with gzip.open(path, "rt") as file:
        sentences = [one for one in file.read().split("\n\n") if one.strip() and "-DOCSTART-" not in one]
    return "\n\n".join(sentences[::2]) + "\n", "\n\n".join(sentences[1::2]) + "\n"


def brown(path: Path) -> list[list[str]]:
    """Sentences of all its documents."""
    with gzip.open(path, "rt") as lines:
        return [sentence.split() for line in lines for sentence in json.loads(line)["sentences"]]


def news_groups(path: Path) -> list[list[str]]:
    """Sentences of the bodies, without what is quoted."""
    found = []
    with lzma.open(path, "rt") as lines:
        for line in lines:
            body = json.loads(line)["text"].partition("\n\n")[2]
            kept = " ".join(part for part in body.splitlines() if not part.lstrip().startswith((">", "|", ":")))
            found += [WORDS.findall(sentence) for sentence in re.split(r"(?<=[.?!])\s+", kept)]
    return found


def some(sentences: list[list[str]]) -> str:
    """So many sentences of 5 to 40 words, drawn at random, as unlabelled JSON lines."""
    chosen = random.Random(0).sample([words for words in sentences if 5 <= len(words) <= 40], SENTENCES)
    return "".join(json.dumps({"tokens": words}) + "\n" for words in chosen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--run-dir", type=Path, default=Path("runs/drift"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    data = options.run_dir / "data"
    data.mkdir(parents=True, exist_ok=True)
    kept, control = conll_halves(options.shared / "conll2003/testa.iob2.conll.gz")
    files = {
        "validation.conll": kept,
        "control.conll": control,
        "brown.jsonl": some(brown(options.shared / "lm_text/brown.jsonl.gz")),
        "news-groups.jsonl": some(news_groups(options.shared / "newsgroups20/train.jsonl.xz")),
    }
    for name, text in files.items():
        write_atomic(data / name, text)
    validation = (data / "validation.conll").resolve()
    recipe = load_recipe(options.recipe, ["seeds=[0]", "hard_baseline=false", f"data.validation={validation}"])
    pipeline.run(recipe, options.run_dir / "run")
    found: dict[str, dict[str, Any]] = {}
    for title, name, force in (
        ("like its own", "control.conll", False),
        ("like its own, forced", "control.conll", True),
        ("Brown", "brown.jsonl", False),
        ("news groups", "news-groups.jsonl", False),
    ):
        run = options.run_dir / Path(name).stem
        if not run.exists():  # a copy for each: a refresh begins from the version that the last one has promoted
            shutil.copytree(options.run_dir / "run", run)
        found[title] = refresh(run, data / name, force=force)
        print(title, *found[title]["sentences"], sep="\n  ", flush=True)
    command = "python benchmarks/drift.py " + " ".join(sys.argv[1:])
    write_json(options.out.with_suffix(".json"), {"command": command, "refreshes": found})
    write_atomic(options.out, page(found, command))


def page(found: dict[str, dict[str, Any]], command: str) -> str:
    """The tables, in Markdown."""
    tests = [test["name"] for test in found["Brown"]["drift"]["tests"]]
    lines = [
        "# A student as its data move", "",
        "A student of CoNLL-2003 (4.5M parameters, one seed) is fed other texts, which the teacher labels, and, as a"
        " control, sentences of the texts that it is validated on, which nothing was trained or chosen by.", "",
        "p-values, each by permutation of whole sentences; drift is seen where Holm's correction of all of them leaves"
        " one below 0.01:", "",
        "| new data | " + " | ".join(tests) + " | drift |", "|---|" + "---|" * (len(tests) + 1),
    ]  # fmt: skip
    for title, one in found.items():
        if "forced" not in title:
            p = {test["name"]: test["p_value"] for test in one["drift"]["tests"]}
            cells = " | ".join(f"{p[name]:.4f}" if name in p else "" for name in tests)
            lines.append(f"| {title} | {cells} | {'yes' if one['drift']['drifted'] else 'no'} |")
    lines += [
        "", "The gate: new minus old student in points of F1, 95 % intervals by the paired bootstrap.", "",
        "| new data | on the new | on the old | promoted |", "|---|---|---|---|",
    ]  # fmt: skip
    for title, one in found.items():
        if one["gate"] is not None:
            cells = [
                f"{100 * g['mean']:+.2f} ({100 * g['low']:+.2f} … {100 * g['high']:+.2f})"
                for g in (one["gate"]["on_new"], one["gate"]["on_old"])
            ]
            lines.append(f"| {title} | {cells[0]} | {cells[1]} | {'yes' if one['promoted'] else 'no'} |")
    lines += ["", "What it says of each:", ""]
    lines += [f"- *{title}*: {' '.join(one['sentences'])}" for title, one in found.items()]
    return "\n".join([*lines, "", f"Command: `{command}`", ""])


if __name__ == "__main__":
    main()
