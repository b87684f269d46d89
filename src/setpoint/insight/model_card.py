"""A model card for the Hub: what the student is, what it was distilled from, why at that temperature, and how well."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from setpoint.insight.finished import FinishedRun, read_run
from setpoint.insight.markdown import plain
from setpoint.insight.summary import summary_rows, verdict
from setpoint.run_folder import damaged

METRICS = {
    "f1": "f1",
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "mcc": "matthews_correlation",
}
"""The Hub's names for the tasks' scores."""
MOST_LABELS = 40
"""Of more classes these are named."""
EVIDENCE = ("The targets", "The gradient", "Calibration", "Student and teacher")
"""Sections of ``report.md`` that say why; the others quote examples of the data, which are not ours to publish."""


def model_card(run_folder: str | Path) -> str:
    """The card of a finished run's student, Markdown with the Hub's YAML in front.

    It says what the run knows and no more: no license, and nothing of an intended use, which nobody has assessed. Of
    local paths only the last part is shown. The sentences on the temperature are those of the search, where there was
    one, and of ``report.md``, where ``setpoint explain`` has written it.

    Args:
        run_folder: the run folder.

    Raises:
        RunError: the folder holds no finished run, or a file of it is damaged.
    """
    run = read_run(run_folder)
    try:
        return _card(run)
    except (KeyError, TypeError, AttributeError):  # of another version, or somebody has edited it
        raise damaged(run.path / "metrics.json") from None


def _card(run: FinishedRun) -> str:
    data = card_data(run)
    parts = [
        f"# {plain(run.metrics['name'])}",
        plain(verdict(run.metrics)),
        *_about(run),
        "## Temperature",
        *(plain(sentence) for sentence in _tuning(run)),
        *_explained(run.path),
        "## Teacher and student, on the test split",
        _table(summary_rows(run.metrics)),
        f"Scores are means over {len(run.metrics['student']['seeds'])} seeds, with the least and the most of them."
        if len(run.metrics["student"]["seeds"]) > 1
        else "There is one student of each kind, which tells nothing of the noise of training.",
        "## How to use it",
        _usage(run),
        "## Intended use, limits and biases",
        "Not assessed. The figures above are of one test split and say nothing of other data; what the teacher gets"
        " wrong, a student may have learnt from it.",
        "## Recipe",
        "Trained with Setpoint; of local paths the last part is shown.",
        _fenced(yaml.safe_dump(_without_paths(run.recipe), sort_keys=False, allow_unicode=True), "yaml"),
    ]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"


def card_data(run: FinishedRun) -> ModelCardData:
    """What the Hub reads of a card, with the test scores as ``model-index``."""
    metrics, data = run.metrics, run.recipe.get("data", {})
    scores = {name: value for name, value in metrics["student"]["metrics"].items() if name in METRICS}
    hub = data.get("dataset") if _is_hub_id(data.get("dataset")) else None
    return ModelCardData(
        model_name=metrics["name"],
        library_name="transformers",
        pipeline_tag=metrics["task"],
        tags=["setpoint", "knowledge-distillation"],
        datasets=[hub] if hub else None,
        base_model=_base(run.recipe),
        metrics=[METRICS[name] for name in scores],
        eval_results=[
            EvalResult(
                task_type=metrics["task"],
                dataset_type=hub or "custom",
                dataset_name=hub or f"{metrics['name']}, test split",
                dataset_split="test",
                metric_type=METRICS[name],
                metric_name=name,
                metric_value=value,
            )
            for name, value in scores.items()
        ],
    )


def _about(run: FinishedRun) -> Iterator[str]:
    recipe = run.recipe
    teacher = [_named(recipe["teacher"]["model"]), *(_last(other["model"]) for other in recipe["teacher"]["others"])]
    start = {
        "pretrained": "from",
        "config": "with new weights, as",
        "layers": "from its teacher's layers,",
        "shrunk": "from",
    }
    student = recipe["student"]["model"]
    yield (
        f"Distilled for {run.metrics['task']} at {plain(run.metrics['temperature'])}, from"
        f" {' and '.join(plain(name) for name in teacher)}, {start[student['kind']]} {plain(_named(student))}."
    )
    if run.labels:
        names = ", ".join(plain(label) for label in run.labels[:MOST_LABELS])
        more = f" and {len(run.labels) - MOST_LABELS} more" if len(run.labels) > MOST_LABELS else ""
        yield f"It tells {len(run.labels)} classes apart: {names}{more}."


def _tuning(run: FinishedRun) -> Iterable[str]:
    """What a search has found; without one, only what the recipe has."""
    if run.tuning is None:
        return [f"The temperature was given in the recipe, {run.metrics['temperature']}; it was not searched."]
    return [*run.tuning["verdict"]["sentences"], *filter(None, [run.tuning.get("how")])]


def _explained(path: Path) -> Iterator[str]:
    """The sentences of ``report.md`` on the temperature, which are Markdown already."""
    try:
        text = (path / "report.md").read_text(encoding="utf-8")
    except OSError:
        return
    said = dict(re.findall(r"^## (.+)\n\n(.+)$", text.partition("\n## Tables\n")[0], re.MULTILINE))
    yield from (f"{title}: {said[title]}" for title in EVIDENCE if title in said)


_PIPELINES = {
    "token-classification": ("token-classification", '"Anna lives in Paris"', ', aggregation_strategy="simple"'),
    "text-classification": ("text-classification", '"What a fine day"', ""),
    "multi-label-classification": (
        "text-classification", '"What a fine day"', ', function_to_apply="sigmoid", top_k=None'
    ),
    "text-regression": ("text-classification", '"What a fine day"', ', function_to_apply="none"'),
    "extractive-question-answering": (
        "question-answering", 'question="Where does Anna live?", context="Anna lives in Paris."', ""
    ),
    "image-classification": ("image-classification", '"picture.png"', ""),
    "causal-language-modelling": ("text-generation", '"Once upon a time"', ""),
    "audio-classification": ("audio-classification", '"recording.wav"', ""),
    "speech-recognition": ("automatic-speech-recognition", '"recording.wav"', ""),
}  # fmt: skip
"""Of each task that transformers has a pipeline for: its name, what to ask, and what else to tell it."""
_SHIPPED = {
    "sequential-recommendation": '[["50", "181"]]',
    "rating-prediction": '[["196", "242"]]',
    "object-detection": '[{"bytes": open("picture.png", "rb").read()}]',
}
"""What to ask an exported student of the tasks that ``pipeline()`` does not know: items, or a user and an item."""


def _usage(run: FinishedRun) -> str:
    """Lines that load the student, with ``pipeline()`` where that knows the task."""
    task, model = run.metrics["task"], run.recipe["student"]["model"]
    waveform = run.recipe["data"].get("features") == "waveform"
    if task in ("audio-classification", "speech-recognition") and not waveform:
        return _fenced(_OF_SPECTROGRAMS, "python")
    if task in ("image-generation", "speech-synthesis"):
        load = 'model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")'
        return _fenced(f"from transformers import AutoModelForCausalLM\n\n{load}\n", "python")
    if task not in _PIPELINES:
        asked = f'Shipped.open("path/to/this/folder").predict({_SHIPPED.get(task, "[...]")})'
        return _fenced(f"from setpoint import Shipped\n\n{asked}\n", "python")
    own = "setpoint" in str(model.get("config", ""))
    name, given, options = _PIPELINES[task]
    lines = [
        *(["import setpoint.vision  # the student's architecture"] if own else []),
        "from transformers import pipeline",
        "",
        f'predict = pipeline("{name}", "path/to/this/folder"{options})',
        f"predict({given})",
    ]
    return _fenced("\n".join(lines) + "\n", "python")


_OF_SPECTROGRAMS = """from pathlib import Path

from setpoint.shipping.shipped import Shipped

Shipped.open("path/to/this/folder").predict([{"bytes": Path("recording.wav").read_bytes()}])
"""
"""No feature extractor of transformers makes the spectrograms that the student reads."""


def _base(recipe: Mapping[str, Any]) -> str | None:
    """The Hub's model that the student's weights began as, where they did."""
    student, teacher = recipe["student"]["model"], recipe["teacher"]["model"]
    origin = teacher if student["kind"] in ("layers", "shrunk") else student
    name = origin.get("model")
    return name if _is_hub_id(name) else None


def _is_hub_id(name: Any) -> bool:
    """Whether a location is a name on the Hub: a path that is there, or looks like one, is none."""
    pattern = r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?"
    return (
        isinstance(name, str) and name not in ("digits", "shapes") and re.fullmatch(pattern, name) is not None
        and not Path(name).exists()
    )  # fmt: skip


def _named(model: Mapping[str, Any]) -> str:
    """What one would call a model of a recipe."""
    if model["kind"] == "pretrained":
        return _last(model["model"])
    if model["kind"] == "layers":
        kept = model["layers"]
        return f"the first {kept}" if isinstance(kept, int) else f"layers {', '.join(map(str, kept))}"
    if model["kind"] == "shrunk":
        return "its teacher made smaller"
    config = model["config"]
    return f"a {config.get('model_type', 'model')}" if isinstance(config, Mapping) else _last(config)


def _last(location: str) -> str:
    return location if _is_hub_id(location) else Path(location).name


def _without_paths(value: Any) -> Any:
    """A recipe without the folders of the machine it ran on."""
    if isinstance(value, Mapping):
        return {key: _without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_paths(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _table(rows: list[dict[str, str]]) -> str:
    head = [plain(name) for name in rows[0]]
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *([plain(cell) for cell in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _fenced(text: str, language: str) -> str:
    """Text as a block of code, within a fence that is longer than any in it."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}{fence}"
