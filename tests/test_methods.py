"""Every method, by its name in a recipe, on a token task, a text task and an image task; and in the README's loop."""

import inspect
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from setpoint import DistillationObjective, HardTargets, stages, teachers
from setpoint.catalogue import METHODS, defaults, find, names, table
from setpoint.errors import RecipeError
from setpoint.job import open_job
from setpoint.objective import ALL_DIVERGENCES
from setpoint.recipe_file import parse_recipe
from setpoint.run_folder import RunFolder
from setpoint.temperature import POLICIES, TemperaturePolicy
from tiny import SMALL, ner_recipe
from worker import command

GIVEN = {
    "linear": {"start": 4.0, "end": 1.0}, "cosine": {"start": 4.0, "end": 1.0},
    "exponential": {"start": 4.0, "end": 1.0}, "step": {"steps": {0.0: 4.0, 0.5: 1.0}},
    "constant": {"temperature": 2.0}, "softness": {"effective_classes": 1.8},
    "itkd": {"every": 3}, "meta": {"every": 1},
}  # fmt: skip
"""What a policy without a default of its own, or with one too long for a few steps, is given here."""


def test_the_catalogue_has_each_method_once_and_no_other():
    assert [m.name for m in METHODS if m.kind == "temperature"] == list(dict.fromkeys(POLICIES))
    assert {m.name for m in METHODS if m.kind == "divergence"} == set(ALL_DIVERGENCES)
    assert len({m.name for m in METHODS}) == len(METHODS)
    for kind in ("temperature", "divergence", "hard"):
        assert set(names(kind)) == {m.name for m in METHODS if m.kind == kind}


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_a_method_has_the_same_fields_and_defaults_in_a_recipe_and_in_python(method):
    """So that `setpoint methods`, `setpoint recipe --fields` and the docstrings cannot tell different things."""
    homes = {"hard": dict.fromkeys(names("hard"), HardTargets), "temperature": POLICIES, "divergence": ALL_DIVERGENCES}
    function = homes[method.kind][method.name]
    context = {"student_log_probs", "teacher_log_probs", "labels", "student_logits", "teacher_logits"}
    context |= {"temperatures"} if method.kind == "divergence" else set()
    arguments = {k: v.default for k, v in inspect.signature(function).parameters.items() if k not in context | {"kind"}}
    arguments.pop("classes", None)  # of ctkd_instance: a run knows them
    if method.name == "progressive":
        arguments |= {"start": 1.0, "end": 2.0}  # None in Python, where beta may be given instead
        arguments.pop("beta")
    fields = defaults(method)
    assert fields.keys() == arguments.keys()
    for name, value in fields.items():
        expected = None if arguments[name] is inspect.Parameter.empty else arguments[name]
        if isinstance(expected, float):
            assert value == pytest.approx(expected, abs=1e-4)
        else:
            assert value == (list(expected) if isinstance(expected, tuple) else expected)


PAGE = Path(__file__).parents[1] / "docs/methods.md"
HEAD = """# Methods

Every published way to set a temperature, to measure a distance and to make hard targets that is here, each by the name
it has in a recipe; `setpoint methods` prints the same. How they compare on two small tasks:
[results](results/index.md). What each depends on: [invariance](invariance.md).
"""
TITLES = {
    "temperature": "Temperature: `temperature: NAME`, or `temperature: {policy: NAME, …}`",
    "divergence": "Divergence: `objective: {divergence: NAME}`, or `{divergence: {kind: NAME, …}}`",
    "hard": "Hard targets: `objective: {hard: {kind: NAME, …}}`",
}


def page():
    lines = [HEAD]
    for kind, title in TITLES.items():
        lines += [f"## {title}\n", "| name | when to use it | defaults | needs | source |", "|---|---|---|---|---|"]
        for row in (row for row in table() if row["kind"] == kind):
            fields = ", ".join(f"{key} = {value}" for key, value in row["defaults"].items() if value is not None)
            lines.append(f"| `{row['name']}` | {row['when']} | {fields} | {row['needs']} | {row['reference']} |")
        lines.append("")
    return "\n".join(lines)


def test_the_page_of_methods_is_the_catalogue():
    """Written anew with ``python tests/test_methods.py``."""
    assert PAGE.read_text() == page()


def test_methods_on_the_command_line():
    listed = json.loads(command("methods", "--json").stdout)
    assert listed == json.loads(json.dumps(table()))
    assert all(row.keys() == {"name", "kind", "reference", "needs", "when", "defaults"} for row in listed)
    shown = command("methods").stdout
    for row in listed:
        assert row["name"] in shown
    one = command("methods", "ats").stdout
    assert "target=4.0" in one
    assert "dkd" not in one
    wrong = command("methods", "ctdk")
    assert wrong.returncode == 2
    assert wrong.stderr.strip() == "setpoint: method 'ctdk' is unknown: did you mean 'ctkd'?"
    with pytest.raises(RecipeError, match="lists all"):
        find("zzz")


# ---------------------------------------------------------------------------------------------------- in recipes


def token_recipe(folder, teacher):
    return ner_recipe(folder, teacher) | {"hard_baseline": False}


def text_recipe(folder, teacher):
    rows = [{"text": f"anna lives in {place}", "label": place} for place in ("paris", "rome", "oslo")] * 8
    for split in ("train", "dev", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"kind": "config", "config": SMALL}
    return {
        "name": "text", "task": "text-classification", "student": {"model": config},
        "data": {"train": "./train.jsonl", "validation": "./dev.jsonl", "test": "./test.jsonl", "max_length": 8},
        "teacher": {"model": config, "tokenizer": str(teacher), "train": {"epochs": 1, "batch_size": 8}},
    }  # fmt: skip


def image_recipe(folder, teacher):
    def model(width):
        return {"kind": "config", "config": {"model_type": "setpoint-convnet", "widths": [width]}}

    return {
        "name": "image", "task": "image-classification", "data": {"dataset": "digits", "limit": 64},
        "teacher": {"model": model(8), "train": {"epochs": 1}}, "student": {"model": model(4)},
    }  # fmt: skip


@pytest.fixture(scope="module", params=[token_recipe, text_recipe, image_recipe], ids=["tokens", "text", "images"])
def prepared(request, tmp_path_factory, teacher_folder):
    """A run up to its targets, for each task: what every method then starts from."""
    folder = tmp_path_factory.mktemp("methods")
    raw = request.param(folder, teacher_folder) | {"train": {"epochs": 1, "arguments": {"max_steps": 2}}, "seeds": [0]}
    with RunFolder(folder / "run") as run_folder:
        job = open_job(parse_recipe(raw, folder=folder), run_folder)
        stages.train_teacher(job)
        teacher = teachers.load_teacher(job)
        yield raw, folder, job, teacher, teachers.prepare_targets(job, teacher)


@pytest.mark.parametrize("method", [m for m in METHODS if m.kind != "hard"], ids=lambda m: m.name)
def test_each_method_trains_a_student_from_a_recipe(prepared, method):
    raw, folder, job, teacher, targets = prepared
    if method.kind == "temperature":
        changed = {"temperature": {"policy": method.name, **GIVEN.get(method.name, {})}}
    else:
        changed = {"objective": {"divergence": method.name}}
    recipe = parse_recipe(raw | changed, folder=folder)
    stages.train_student(replace(job, recipe=recipe), teacher, targets, 0, f"student/{method.name}")
    mark = job.folder.mark(f"student-{method.name}")
    losses = [entry["train_loss"] for entry in mark["result"]["log"] if "train_loss" in entry]
    assert len(losses) == 1
    assert math.isfinite(losses[0])
    assert losses[0] != 0


# ---------------------------------------------------------------------------------------------------- in a loop


def trained(objective, seed=0, steps=12):
    """The README's loop: weights before and after, and the policy's own parameters."""
    torch.manual_seed(seed)
    student, teacher = nn.Linear(6, 4), nn.Linear(6, 4)
    nn.init.normal_(teacher.weight, std=2.0)
    inputs, labels = torch.randn(32, 6), torch.randint(0, 4, (32,))
    before = student.weight.detach().clone()
    optimizer = torch.optim.SGD([*student.parameters(), *objective.parameters()], lr=0.05)
    for step in range(steps):
        with torch.no_grad():
            teacher_logits = teacher(inputs)
        loss = objective(
            student_logits=student(inputs), teacher_logits=teacher_logits, labels=labels, progress=step / steps
        )
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    return before, student.weight.detach(), loss


@pytest.mark.parametrize("name", list(POLICIES))
def test_each_policy_trains_in_the_loop_of_the_readme(name):
    policy = POLICIES[name](**({"classes": 4} if name == "ctkd_instance" else GIVEN.get(name, {})))
    objective = DistillationObjective(policy, alpha=0.9)
    own = [parameter.detach().clone() for parameter in policy.parameters()]
    before, after, loss = trained(objective)
    assert torch.isfinite(after).all()
    assert not torch.equal(before, after)
    assert math.isfinite(float(loss.total.detach()))
    for a, b in zip(own, policy.parameters(), strict=True):
        assert not torch.equal(a, b.detach()), "a learned temperature moves"
    assert isinstance(policy, TemperaturePolicy)
    saved = objective.state_dict()
    again = POLICIES[name](**({"classes": 4} if name == "ctkd_instance" else GIVEN.get(name, {})))
    DistillationObjective(again).load_state_dict(saved)  # what a checkpoint holds is the whole state
    for key, value in again.state_dict().items():
        torch.testing.assert_close(value, policy.state_dict()[key], equal_nan=True)


if __name__ == "__main__":
    PAGE.write_text(page())
