"""General distillation: a student becomes like a teacher's body inside, on raw text, before it learns its task."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForTokenClassification,
    BertConfig,
    BertForMaskedLM,
    BertForTokenClassification,
    BertModel,
)

from reference import features as ref
from setpoint import pipeline, pretraining, stages
from setpoint.errors import ModelError, RecipeError
from setpoint.models import load_model, load_tokenizer
from setpoint.pretraining import pretrain
from setpoint.recipe import ConfigModel, PretrainedModel, PretrainRecipe
from setpoint.recipe_file import parse_recipe
from tasks.wordpiece import PAD, wordpiece
from test_pretraining import BERT, LINES, RAGGED, SIZES, WORDS, losses, message, recipe, same, weights
from tiny import SMALL

STILL = ConfigModel(config=BERT.config | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
WIDE = SIZES | {"hidden_size": 24, "num_hidden_layers": 2, "initializer_range": 0.3}
FEATURES = [{"kind": "hidden", "weight": 2.0}, "cosine", "pkd", {"kind": "attention", "distance": "mse"},
            {"kind": "relations", "heads": 2, "weight": 0.5}]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return wordpiece(WORDS)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, tokenizer):
    """The folder of a wider and deeper teacher, a tagger, with much to tell."""
    folder = tmp_path_factory.mktemp("teacher")
    torch.manual_seed(1)
    BertForTokenClassification(BertConfig(**WIDE, vocab_size=len(tokenizer), pad_token_id=PAD)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return PretrainedModel(model=str(folder))


def how(tmp_path, *features, **options):
    fields = recipe(tmp_path, **options).model_dump()
    return PretrainRecipe(**fields | {"objective": "features", "features": list(features or FEATURES)})


def learn(tmp_path, tokenizer, teacher, made, name="model", spec=STILL, **options):
    return pretrain(
        spec, tokenizer, made, tmp_path / name, tmp_path / f"scratch-{name}", teacher=teacher, **options
    )  # fmt: skip


@pytest.fixture
def watched(monkeypatch):
    """Each trainer that is made, and what it had before its first step."""
    seen = []

    class Watched(pretraining.FeatureTrainer):
        def __init__(self, **options):
            super().__init__(**options)
            self.batches, self.start = [], copy.deepcopy((self.model, self.features))
            seen.append(self)

        def training_step(self, model, inputs, *args, **kwargs):
            self.batches.append({name: tensor.clone() for name, tensor in inputs.items()})
            return super().training_step(model, inputs, *args, **kwargs)

    monkeypatch.setattr(pretraining, "FeatureTrainer", Watched)
    return seen


# ---------------------------------------------------------------------------------------------------- the loss


def test_the_loss_is_the_weighted_sum_of_the_features_over_all_positions(tmp_path, tokenizer, teacher, watched):
    log = learn(tmp_path, tokenizer, teacher, how(tmp_path, text=RAGGED, batch_size=4, epochs=1.0))[0]
    run = watched[0]
    student, features = (module.eval() for module in run.start)
    batch = run.batches[0]
    assert sorted(len(row[row != PAD]) for row in batch["input_ids"]) == [3, 5, 6, 7]
    projections = {name: getattr(term, "projection", None) for name, term in features.terms.items()}
    sums = dict.fromkeys(("hidden", "cosine", "pkd", "attention", "relations"), 0.0)
    positions = 0
    for text in RAGGED:
        inputs = tokenizer([text], return_tensors="pt")
        asks = {"output_hidden_states": True, "output_attentions": True}
        with torch.no_grad():
            one, other = student.double()(**inputs, **asks), run.teacher.model.double()(**inputs, **asks)
            # Of one layer and two: the embeddings with the embeddings, the last layer with the last.
            pairs = [(one.hidden_states[m], other.hidden_states[2 * m]) for m in (0, 1)]
            mapped = {
                name: [projections[name].double()(s)[0].tolist() for s, _ in pairs]
                for name in ("hidden", "cosine", "pkd")
            }
        states = [t[0].tolist() for _, t in pairs]
        length = len(states[0])
        positions += length
        for level, t in enumerate(states):
            for i in range(length):
                sums["hidden"] += ref.mse(mapped["hidden"][level][i], t[i])
                sums["cosine"] += ref.cosine(mapped["cosine"][level][i], t[i])
            sums["pkd"] += ref.pkd(mapped["pkd"][level][0], t[0])
        s_heads, t_heads = one.attentions[0][0].tolist(), other.attentions[1][0].tolist()
        last = one.hidden_states[1][0].tolist()
        for i in range(length):
            sums["attention"] += ref.attention_mse(s_heads, t_heads, i)
            sums["relations"] += ref.relation_kl(last, states[1], 2, i)
    expected = {name: value / (len(RAGGED) if name == "pkd" else positions) for name, value in sums.items()}
    for name, value in expected.items():
        assert log[name] == pytest.approx(value, rel=1e-4), name
    given = {"hidden": 2.0, "cosine": 1.0, "pkd": 1.0, "attention": 1.0, "relations": 0.5}
    assert log["loss"] == pytest.approx(sum(given[name] * value for name, value in expected.items()), rel=1e-4)


def test_micro_batches_make_the_step_of_their_whole(tmp_path, tokenizer, teacher, watched):
    ends = []
    for name, size, parts in (("whole", 4, 1), ("parts", 1, 4)):
        made = how(tmp_path, text=RAGGED, batch_size=size, gradient_accumulation=parts, epochs=1.0, optimizer="sgd",
                   scheduler="constant", warmup=0.0)  # fmt: skip
        log = learn(tmp_path, tokenizer, teacher, made, name)
        ends.append((log[0]["loss"], watched[-1].model.state_dict(), watched[-1].features.state_dict()))
    (loss, model, beside), (loss_of_parts, *rest) = ends
    assert len(watched[1].batches) == 4
    assert loss_of_parts == pytest.approx(loss, rel=1e-5)
    for one, other in zip((model, beside), rest, strict=True):
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-6, msg=name)
    start, projections = (module.state_dict() for module in watched[0].start)
    assert not torch.equal(start["encoder.layer.0.output.dense.weight"], model["encoder.layer.0.output.dense.weight"])
    assert [name for name in projections if torch.equal(projections[name], beside[name])] == []  # they learn too


def test_a_student_becomes_like_its_teacher_inside(tmp_path, tokenizer, teacher, watched):
    made = how(tmp_path, "hidden", "relations", text=LINES, epochs=30.0)
    log = [entry for entry in learn(tmp_path, tokenizer, teacher, made) if "loss" in entry]
    assert log[-1]["hidden"] < 0.6 * log[0]["hidden"]
    assert log[-1]["relations"] < 0.6 * log[0]["relations"]
    run = watched[0]
    assert not run.teacher.model.training
    assert not hasattr(run.teacher.model, "classifier")  # logits are not even made
    before = BertForTokenClassification.from_pretrained(teacher.model).bert.state_dict()
    assert all(
        torch.equal(value, before[name]) for name, value in run.teacher.model.state_dict().items() if name in before
    )


def test_the_body_goes_into_a_tagger_and_nothing_else_is_left(tmp_path, tokenizer, teacher, watched):
    learn(tmp_path, tokenizer, teacher, how(tmp_path, epochs=1.0), seed=4)
    tagger = load_model(PretrainedModel(model=str(tmp_path / "model")), AutoModelForTokenClassification, ("O", "X"))
    learnt = watched[0].model.state_dict()
    assert all(torch.equal(value, learnt[name]) for name, value in tagger.bert.state_dict().items())
    still = [name for name, value in watched[0].start[0].state_dict().items() if torch.equal(value, learnt[name])]
    assert [name for name in still if not name.startswith("pooler")] == []
    assert not [name for name in weights(tmp_path / "model") if "projection" in name or "classifier" in name]
    assert {file.name for file in (tmp_path / "model").iterdir()} >= {"config.json", "tokenizer.json"}
    assert not list((tmp_path / "model").glob("features*"))
    assert load_tokenizer(tmp_path / "model").get_vocab() == tokenizer.get_vocab()


def test_students_and_projections_come_from_the_seed_and_nothing_else(tmp_path, tokenizer, teacher, watched):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(ord(name))
        learn(tmp_path, tokenizer, teacher, how(tmp_path, epochs=1.0), name, seed=seed)
    starts = [[module.state_dict() for module in run.start] for run in watched]
    assert all(same(one, other) for one, other in zip(starts[0], starts[1], strict=True))
    assert not any(same(one, other) for one, other in zip(starts[0], starts[2], strict=True))
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_the_students_dropout_is_the_one_that_is_asked_for(tmp_path, tokenizer, teacher):
    made = how(tmp_path, "attention", epochs=1.0)
    assert "set student.dropout to 0" in message(ModelError, learn, tmp_path, tokenizer, teacher, made, spec=BERT)
    learn(tmp_path, tokenizer, teacher, made, spec=BERT, dropout=0.0)
    assert json.loads((tmp_path / "model/config.json").read_text())["attention_probs_dropout_prob"] == 0


def test_a_student_without_token_types_learns_from_a_teacher_with_them(tmp_path, tokenizer, teacher):
    distil = {"model_type": "distilbert", "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32,
              "max_position_embeddings": 16}  # fmt: skip
    log = learn(tmp_path, tokenizer, teacher, how(tmp_path, "hidden"), spec=ConfigModel(config=distil))
    assert losses(log)[-1] < losses(log)[0]


# ---------------------------------------------------------------------------------------------------- resuming


class PowerCut(Exception):
    pass


@pytest.mark.parametrize(("cut", "begins"), [(1, 0), (7, 6), (9, 8)])
def test_a_killed_one_resumes_to_the_same_weights(tmp_path, tokenizer, teacher, monkeypatch, cut, begins):
    """16 texts in batches of 4, 3 epochs: 12 steps, a checkpoint at every second; with dropout."""
    made, steps, ends = how(tmp_path, "hidden", "relations", saving=True), [], []

    class Trainer(pretraining.FeatureTrainer):
        stop = None

        def training_step(self, *args, **kwargs):
            if self.state.global_step == self.stop:
                raise PowerCut
            steps.append(self.state.global_step)
            return super().training_step(*args, **kwargs)

        def train(self, *args, **kwargs):
            super().train(*args, **kwargs)
            ends.append(copy.deepcopy(self.features.state_dict()))

    monkeypatch.setattr(pretraining, "FeatureTrainer", Trainer)
    learn(tmp_path, tokenizer, teacher, made, "whole", spec=BERT)
    monkeypatch.setattr(Trainer, "stop", cut)
    with pytest.raises(PowerCut):
        learn(tmp_path, tokenizer, teacher, made, "broken", spec=BERT)
    assert not (tmp_path / "broken").exists()
    monkeypatch.setattr(Trainer, "stop", None)
    steps.clear()
    learn(tmp_path, tokenizer, teacher, made, "broken", spec=BERT)
    assert steps == list(range(begins, 12))
    assert same(weights(tmp_path / "broken"), weights(tmp_path / "whole"))
    assert same(*ends)


# ---------------------------------------------------------------------------------------------------- a run


@pytest.fixture
def run_of(ner, tmp_path):
    """The tiny job with a student that is pre-trained on its teacher's states, and what is changed in it."""
    (tmp_path / "text.txt").write_text("\n".join(f"{name} lives in {place}" for name in ("anna", "bob", "carla")
                                                 for place in ("paris", "rome", "oslo")))  # fmt: skip

    def change(student=None, pretrain=None, **changes):
        train = {"epochs": 4, "batch_size": 4, "learning_rate": 3e-3, "arguments": {"logging_steps": 1}}
        general = {"objective": "features", "text": "./text.txt", "features": ["hidden", "relations"], "max_length": 16,
                   "train": train}  # fmt: skip
        who = {
            "model": {"kind": "config", "config": SMALL | {"hidden_size": 8}},
            "pretrain": general | (pretrain or {}),
        }
        return parse_recipe(ner | {"student": who | (student or {}), "hard_baseline": False} | changes, folder=tmp_path)

    return change


@pytest.fixture
def bodies(monkeypatch):
    """The weights of each teacher of states."""
    seen = []

    class Watched(pretraining.FeatureTrainer):
        def __init__(self, **options):
            super().__init__(**options)
            seen.append({name: value.clone() for name, value in self.teacher.model.state_dict().items()})

    monkeypatch.setattr(pretraining, "FeatureTrainer", Watched)
    return seen


def holds(body, folder):
    """Whether these are the weights of the body of a folder's tagger."""
    there = load_file(folder / "model.safetensors")
    return all(torch.equal(value, there[f"bert.{name}"]) for name, value in body.items() if f"bert.{name}" in there)


@pytest.mark.slow
def test_a_run_learns_states_first_of_the_teacher_before_its_fine_tuning(run_of, tmp_path, teacher_folder, bodies):
    summary = pipeline.run(run_of(objective={"features": ["relations"]}, targets={"kind": "live"}), tmp_path / "run")
    assert summary["student"]["metrics"]["f1"] > 0.5
    assert holds(bodies[0], teacher_folder)
    assert not holds(bodies[0], tmp_path / "run/teacher")
    log = json.loads((tmp_path / "run/stages/student-pretrained.json").read_text())["result"]["log"]
    terms = [(entry["hidden"], entry["relations"]) for entry in log if "hidden" in entry]
    assert len(terms) == 4 * 3
    assert terms[-1][0] < terms[0][0]
    pipeline.run(run_of(objective={"features": ["relations"]}, targets={"kind": "live"}), tmp_path / "run")
    assert len(bodies) == 1  # once is enough
    other = run_of(pretrain={"features": ["cosine"]}, objective={"features": ["relations"]}, targets={"kind": "live"})
    pipeline.run(other, tmp_path / "run")
    assert len(bodies) == 2


@pytest.mark.slow
def test_it_learns_from_a_teacher_that_was_pretrained_in_the_run(run_of, tmp_path, ner, teacher_folder, bodies):
    how = {"text": "./text.txt", "max_length": 16, "train": {"epochs": 1, "batch_size": 4, "learning_rate": 1e-2}}
    pipeline.run(run_of(teacher=ner["teacher"] | {"pretrain": how}), tmp_path / "run")
    learnt = BertForMaskedLM.from_pretrained(tmp_path / "run/teacher-pretrained").bert.state_dict()
    assert all(torch.equal(value, learnt[name]) for name, value in bodies[0].items() if name in learnt)


@pytest.mark.slow
def test_another_teacher_of_states_may_be_named(run_of, tmp_path, teacher_folder, bodies):
    torch.manual_seed(7)
    tagger = BertForTokenClassification.from_pretrained(teacher_folder)
    BertModel(tagger.config).save_pretrained(tmp_path / "other")
    load_tokenizer(teacher_folder).save_pretrained(tmp_path / "other")
    pipeline.run(run_of(pretrain={"teacher": "./other"}), tmp_path / "run")
    there = load_file(tmp_path / "other/model.safetensors")
    assert same(bodies[0], there)


def test_a_teacher_with_another_tokenizer_is_refused(run_of, tmp_path, teacher_folder):
    BertForTokenClassification.from_pretrained(teacher_folder).save_pretrained(tmp_path / "other")
    wordpiece(WORDS).save_pretrained(tmp_path / "other")
    own = len(load_tokenizer(teacher_folder))
    with pytest.raises(ModelError) as caught:
        pipeline.run(run_of(pretrain={"teacher": "./other"}), tmp_path / "run")
    assert str(caught.value) == (
        "student.pretrain.objective is features while the student has another tokenizer than the model it learns from,"
        f" of {own} and 13 entries: give models of one tokenizer"
    )


IMAGES = {"task": "image-classification", "data": {"dataset": "digits", "train": "train", "test": "test"}}
BARE = {"kind": "config", "config": SMALL}


@pytest.mark.parametrize(
    ("kind", "changes", "sentence"),
    [
        (RecipeError, {"pretrain": {"objective": "masked"}},
         "recipe field 'student.pretrain' has features with the objective masked: set objective to features"),
        (RecipeError, {"pretrain": {"objective": "causal", "features": [], "teacher": "./other"}},
         "recipe field 'student.pretrain' has a teacher with the objective causal: set objective to features"),
        (RecipeError, {"pretrain": {"features": []}},
         "recipe field 'student.pretrain' has the objective features and no features: give some, such as "
         "[hidden, relations]"),
        (RecipeError, {"pretrain": {"new_tokenizer": True}},
         "recipe field 'student.pretrain' has new_tokenizer beside the objective features, which takes one for both:"
         " remove it"),
        (ModelError, {"student": {"model": {"kind": "shrunk", "vocabulary": {}}}},
         "student.pretrain is given for its trained teacher made smaller: remove it, or describe a config"),
        (ModelError, {"student": {"model": {"kind": "layers", "layers": 1}}},
         "student.pretrain is given for layers of a trained teacher: remove it, or describe a config"),
        (ModelError, {"pretrain": {"features": ["attention"]}},
         "student.pretrain.features has attention while the student drops 0.1 of its own: set student.dropout to 0, or"
         " that field of its config"),
        (ModelError, {"pretrain": {"features": ["attention_transfer"]}},
         "student.pretrain.features has attention_transfer while the student has no convolutional maps: remove that"
         " feature"),
        (ModelError, {"pretrain": {"features": [{"kind": "hidden", "layers": [[1, 3]]}]}},
         "student.pretrain.features compares layer 3 of the teacher, which has 0 to 2: mend the list of layers"),
        (ModelError, {"teacher": {"model": BARE, "new_tokenizer": 300, "train": {"epochs": 1}}},
         "student.pretrain.objective is features while teacher.model is a bare config, which knows nothing of texts:"
         " give student.pretrain.teacher, or teacher.pretrain"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_trained(run_of, tmp_path, kind, changes, sentence):
    with pytest.raises(kind) as caught:
        pipeline.run(run_of(**changes), tmp_path / "run")
    assert str(caught.value) == sentence
    assert not (tmp_path / "run/teacher").exists()


def test_a_teacher_has_no_teacher_of_states(run_of, ner):
    how = {"objective": "features", "text": "./text.txt", "features": ["hidden"]}
    with pytest.raises(RecipeError) as caught:
        run_of(teacher=ner["teacher"] | {"pretrain": how})
    assert str(caught.value) == (
        "recipe field 'teacher' has the pretrain.objective features, which is for students: set it to masked or causal"
    )


def test_a_task_without_text_is_refused(run_of, tmp_path):
    with pytest.raises(RecipeError) as caught:
        pipeline.run(run_of(student={"model": {"kind": "config", "config": {"model_type": "vit"}}}, **IMAGES), tmp_path)
    assert str(caught.value) == (
        "recipe field 'student.pretrain.objective' is features for the task image-classification, which reads no text:"
        " remove student.pretrain"
    )


def test_a_text_longer_than_the_teacher_reads_is_refused(tmp_path, tokenizer, teacher):
    spec = ConfigModel(config=STILL.config | {"max_position_embeddings": 32})
    made = how(tmp_path, max_length=20)
    assert message(ModelError, learn, tmp_path, tokenizer, teacher, made, spec=spec) == (
        "pretrain.max_length is 20 while the teacher has 16 positions: give at most 16"
    )


def test_a_body_that_lacks_weights_is_no_teacher(tmp_path, tokenizer):
    """Its last layers are no head that may be new."""
    from transformers import DistilBertConfig, DistilBertForTokenClassification

    config = DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=32, vocab_size=len(tokenizer))
    whole = DistilBertForTokenClassification(config)
    kept = {name: value for name, value in whole.state_dict().items() if "layer.1" not in name}
    whole.save_pretrained(tmp_path / "teacher", state_dict=kept)
    spec = PretrainedModel(model=str(tmp_path / "teacher"))
    text = message(ModelError, learn, tmp_path, tokenizer, spec, how(tmp_path, "hidden"))
    assert "lacks weights of its architecture, such as 'transformer.layer.1" in text


@pytest.mark.slow
def test_all_kinds_of_a_recipe_pass_to_the_other_processes(run_of, tmp_path, monkeypatch):
    """What the first process calls for is all that another needs to train with it."""
    calls = []
    monkeypatch.setattr(stages.processes, "call", lambda kind, **given: calls.append((kind, given)))
    pipeline.run(run_of(student={"dropout": 0.0}), tmp_path / "run")
    given = dict(calls)["pretrain"]
    again = given | {"folder": tmp_path / "again", "scratch": tmp_path / "scratch"}
    pretrain(**again)
    assert same(weights(tmp_path / "again"), weights(given["folder"]))


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["masked", "causal"])
def test_the_students_dropout_holds_where_it_learns_words(run_of, tmp_path, monkeypatch, objective):
    seen = []
    real = pretraining.pretrain
    monkeypatch.setattr(pretraining, "pretrain", lambda **given: seen.append(given["dropout"]) or real(**given))
    words = {"objective": objective, "features": []}
    pipeline.run(run_of(student={"dropout": 0.25}, pretrain=words), tmp_path / "run")
    assert seen == [0.25]
    config = json.loads((tmp_path / "run/student-pretrained/config.json").read_text())
    assert config["hidden_dropout_prob"] == 0.25
