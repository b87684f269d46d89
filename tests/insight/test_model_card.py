import json

import pytest
import yaml
from huggingface_hub import ModelCard

from runs import finished_run
from setpoint.errors import RunError
from setpoint.insight.model_card import model_card
from worker import command

SCORES = {"0": 0.80, "1": 0.82}
RECIPE = {
    "data": {"dataset": "eriktks/conll2003", "train": "train"},
    "teacher": {"model": {"kind": "pretrained", "model": "dslim/bert-base-NER"}, "others": []},
    "student": {"model": {"kind": "pretrained", "model": "google/bert_uncased_L-4_H-256_A-4"}},
}


def card(folder, **changes):
    changes["recipe"] = RECIPE | changes.get("recipe", {})
    finished_run(folder, SCORES, **changes)
    return ModelCard(model_card(folder))


def test_the_hub_reads_what_the_run_knows(tmp_path):
    found = card(tmp_path / "tiny")
    data = found.data.to_dict()
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "token-classification"
    assert (data["datasets"], data["base_model"]) == (["eriktks/conll2003"], RECIPE["student"]["model"]["model"])
    assert "license" not in data
    (result,) = found.data.eval_results
    assert (result.metric_type, result.metric_value) == ("f1", pytest.approx(0.81))
    assert (result.dataset_type, result.dataset_split) == ("eriktks/conll2003", "test")
    for said in (
        "keeps 90.0% of its f1",
        "from dslim/bert-base-NER, from google/bert_uncased_L-4_H-256_A-4.",
        "It tells 2 classes apart: O, B-PER.",
        "The temperature was given in the recipe, T = 4; it was not searched.",
        "Not assessed.",
        "| student, distilled | 0.8100 (0.8000 … 0.8200) | 97.00% | 1,000 | 4 kB | 1.50 ms |",
        'pipeline("token-classification", "path/to/this/folder", aggregation_strategy="simple")',
    ):
        assert said in found.content, said


def test_the_evidence_for_the_temperature_is_quoted_and_no_example_is(tmp_path):
    folder = tmp_path / "tiny"
    finished_run(folder, SCORES, recipe=RECIPE)
    tuning = {"verdict": {"sentences": ["T = 4 is best.", "It is flat from 3 to 6."]}, "how": "6 students at once."}
    (folder / "tuning.json").write_text(json.dumps(tuning))
    (folder / "report.md").write_text(
        "# tiny: why\n\n## The run\n\nA run.\n\n## The targets\n\nThey are soft\\*.\n\n## Examples\n\nRow 3 "
        "'Anna Smith' moves most.\n\n## Tables\n\n### The gradient\n\n| T |\n"
    )
    text = model_card(folder)
    assert (
        "T = 4 is best.\n\nIt is flat from 3 to 6.\n\n6 students at once.\n\nThe targets: They are soft\\*.\n\n" in text
    )
    assert "Anna Smith" not in text
    assert "The gradient" not in text  # the heading of a table is no sentence


def test_a_recipe_keeps_what_was_run_but_no_folder_of_the_machine(tmp_path):
    local = {
        "data": {"train": "/home/anna/secret/train.conll", "dataset": None},
        "teacher": {"model": {"kind": "pretrained", "model": "/home/anna/runs/x/teacher"}, "others": []},
        "student": {"model": {"kind": "layers", "layers": [0, 2]}},
        "note": "``` # not the end",
    }
    found = card(tmp_path / "tiny", recipe=local)
    assert "anna" not in found.content
    fence = found.content.split("## Recipe")[1].split("yaml\n")[0].split()[-1]
    recipe = yaml.safe_load(found.content.split(f"{fence}yaml\n")[1].split(f"\n{fence}\n")[0])
    assert (fence, recipe["data"]["train"], recipe["note"]) == ("````", "train.conll", "``` # not the end")
    assert "from teacher, from its teacher's layers, layers 0, 2." in found.content
    assert "base_model" not in found.data.to_dict()
    assert found.data.eval_results[0].dataset_type == "custom"


def test_a_card_of_a_teacher_made_smaller_names_it_as_the_base_and_no_folder(tmp_path):
    student = {"kind": "shrunk", "layers": 2, "vocabulary": {"text": ["/home/anna/secret/news.txt"]}}
    teacher = {"model": {"kind": "pretrained", "model": "someone/tagger"}, "others": []}
    found = card(tmp_path / "tiny", recipe={"teacher": teacher, "student": {"model": student}})
    assert "from its teacher made smaller." in found.content
    assert found.data.base_model == "someone/tagger"
    assert "anna" not in found.content


def test_hostile_names_stay_text(tmp_path):
    names = ["<script>alert(1)</script>", "[x](http://evil)", "a|b", "--- # yaml\nlicense: mit", "`code`"]
    found = card(tmp_path / "tiny", labels=names, temperature="T = <img src=x>\n# 4", name="x: *y\n---\nlicense: mit")
    assert found.data.to_dict()["model-index"][0]["name"] == "x: *y\n---\nlicense: mit"
    assert "license" not in found.data.to_dict()
    body = found.content.split("\n---\n", 2)[-1]
    for danger in ("<script", "<img", "\n# 4", "\n---\nlicense", "| a|b", " [x]", " `code"):
        assert danger not in body.split("## Recipe")[0].replace("\\" + danger.strip(), ""), danger
    assert r"\<script>alert(1)\</script>, \[x](http://evil), a\|b, --- # yaml license: mit, \`code\`." in body


def test_a_student_of_an_architecture_of_ours_is_loaded_with_it(tmp_path):
    student = {"model": {"kind": "config", "config": {"model_type": "setpoint-convnet"}}}
    found = card(tmp_path / "tiny", task="image-classification", metric="accuracy", recipe={"student": student})
    assert "import setpoint.vision  # the student's architecture\nfrom transformers import pipeline\n" in found.content
    assert "with new weights, as a setpoint-convnet." in found.content


def test_a_task_that_transformers_has_no_pipeline_for_is_asked_as_exported(tmp_path):
    student = {"model": {"kind": "config", "config": {"model_type": "setpoint-factorisation"}}}
    found = card(tmp_path / "tiny", task="rating-prediction", metric="accuracy", recipe={"student": student})
    asked = 'from setpoint import Shipped\n\nShipped.open("path/to/this/folder").predict([["196", "242"]])'
    assert f"```python\n{asked}\n```" in found.content


def test_a_run_that_is_damaged_is_refused(tmp_path):
    finished_run(tmp_path / "a", SCORES, recipe=RECIPE | {"student": {}})
    with pytest.raises(RunError, match="metrics.json' is damaged: run the recipe again"):
        model_card(tmp_path / "a")


def test_the_command_writes_it(tmp_path):
    finished_run(tmp_path / "a", SCORES, recipe=RECIPE)
    shown = command("card", "a", cwd=tmp_path).stdout
    assert shown == model_card(tmp_path / "a")
    written = command("card", "a", "--out", "README.md", cwd=tmp_path)
    assert written.stdout == "Card: README.md\n"
    assert (tmp_path / "README.md").read_text() == shown
