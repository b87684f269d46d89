import copy
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

from setpoint import pipeline, small_embeddings, stages, teachers
from setpoint.errors import DataError, ModelError, RecipeError
from setpoint.job import open_job
from setpoint.narrowing import _fit_heads, observe
from setpoint.recipe import ShrunkTeacher, TeacherLayers
from setpoint.recipe_file import parse_recipe
from setpoint.run_folder import RunFolder
from setpoint.shrinking import shrink
from setpoint.small_embeddings import fit_embeddings
from setpoint.surgery import cut_layers
from tiny import TAGS, save_teacher


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Few words need few steps."""
    monkeypatch.setattr(small_embeddings, "STEPS", 60)
    monkeypatch.setattr(small_embeddings, "TOKENS", 400)
    monkeypatch.setattr(small_embeddings, "SAMPLE", 2000)


WORDS, WIDTH, LAYERS, HEADS, INNER = 60, 24, 4, 6, 48


def model(kind="bert", auto=AutoModelForTokenClassification, **fields):
    torch.manual_seed(0)
    sizes = {
        "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": INNER,
        "vocab_size": WORDS, "max_position_embeddings": 34, "num_labels": 3, "pad_token_id": 1, "type_vocab_size": 2,
        "initializer_range": 0.2,
    }  # fmt: skip
    net = auto.from_config(AutoConfig.for_model(kind, **sizes | fields)).eval()
    for name, parameter in net.named_parameters():  # as of a trained one: gains that differ
        if "LayerNorm" in name:
            parameter.data += 0.2 * torch.randn_like(parameter)
    return net


def sample(_=None, examples=160, length=14, seed=0):
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(examples // 16):
        ids = torch.randint(2, WORDS, (16, length), generator=generator)
        lengths = torch.randint(length // 2, length + 1, (16, 1), generator=generator)
        mask = (torch.arange(length) < lengths).long()
        types = (torch.arange(length) >= length // 2).long().expand_as(ids)
        batches.append({"input_ids": torch.where(mask == 1, ids, 1), "attention_mask": mask, "token_type_ids": types})
    return batches


def shrunk(net, auto=AutoModelForTokenClassification, **fields):
    return shrink(net, None, ShrunkTeacher(**fields), auto, np.ones(WORDS, dtype=np.int64), sample)


def logits(net, seed=9):
    return torch.cat([net(**batch).logits.flatten(0, -2) for batch in sample(seed=seed)]).detach()


def unexplained(net, teacher):
    """The share of the teacher's logits, on other texts than the fit's, that a student does not give."""
    expected = logits(teacher)
    return float((logits(net) - expected).square().sum() / (expected - expected.mean(0)).square().sum())


def random(net):
    torch.manual_seed(1)
    return type(net)(net.config).eval()


# ---------------------------------------------------------------------------------------------------- the maths


def test_what_keeps_its_size_is_the_teacher():
    """Every fit is asked for, and each finds what there is: all its neurons, heads and directions."""
    teacher = model()
    student = shrunk(teacher, intermediate_size=INNER).model
    torch.testing.assert_close(logits(student), logits(teacher), atol=1e-4, rtol=0)


TOKENS, TEXTS = AutoModelForTokenClassification, AutoModelForSequenceClassification


@pytest.mark.parametrize(("kind", "auto", "fields"), [
    ("bert", TOKENS, {"hidden_size": 16}),
    ("bert", TOKENS, {"intermediate_size": 24}),
    ("bert", TOKENS, {"hidden_size": 20, "intermediate_size": 40, "heads": 5}),
    ("bert", TOKENS, {"hidden_size": 12, "heads": 6}),
    ("bert", TOKENS, {"layers": 3, "intermediate_size": 40}),
    ("bert", TOKENS, {"embedding_size": 16}),
    ("bert", TOKENS, {"embedding_size": 18, "hidden_size": 20}),
    ("roberta", TOKENS, {"hidden_size": 16}),
    ("bert", TEXTS, {"hidden_size": 16}),
    ("bert", TEXTS, {"embedding_size": 18, "hidden_size": 20}),
    ("roberta", TEXTS, {"hidden_size": 20}),
], ids=str)  # fmt: skip
def test_a_smaller_student_starts_nearer_to_its_teacher_than_a_random_one(kind, auto, fields, tmp_path):
    teacher = model(kind, auto)
    student = shrunk(teacher, auto, **fields).model
    assert unexplained(student, teacher) < min(0.7, 0.5 * unexplained(random(student), teacher))
    assert student.num_parameters() < teacher.num_parameters()
    config = student.config
    assert config.model_type == ("electra" if "embedding_size" in fields else kind)
    assert config.hidden_size == fields.get("hidden_size", WIDTH)
    assert config.num_attention_heads == fields.get("heads", HEADS * config.hidden_size // WIDTH)
    assert config.intermediate_size == fields.get("intermediate_size", INNER * config.hidden_size // WIDTH)
    assert config.num_hidden_layers == fields.get("layers", LAYERS)
    assert getattr(config, "embedding_size", None) == fields.get("embedding_size")
    student.save_pretrained(tmp_path)
    again = auto.from_pretrained(tmp_path).eval()
    assert torch.equal(logits(again), logits(student))
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_heads_of_a_lower_rank_attend_and_give_as_before():
    """Where a head's two products have the rank of the student's heads, scores and results are the teacher's."""
    teacher, narrow = model(), model(hidden_size=12).bert.encoder.layer[0].attention.self
    attention, basis = teacher.bert.encoder.layer[0].attention, torch.linalg.qr(torch.randn(WIDTH, 12))[0]
    inputs = torch.randn(300, 12)
    maps = {name: torch.randn(HEADS, 4, 2) @ torch.randn(HEADS, 2, 13) for name in ("query", "key")}
    maps["value"] = torch.randn(HEADS, 4, 13)
    outer = torch.randn(HEADS, WIDTH, 2) @ torch.randn(HEADS, 2, 4)
    seen = {"context": torch.randn(300, WIDTH)}
    for name, value in maps.items():
        getattr(attention.self, name).weight.data = value.flatten(0, 1)[:, :-1] @ basis.T
        seen[name] = inputs @ value.flatten(0, 1)[:, :-1].T + value.flatten(0, 1)[:, -1]
    attention.output.dense.weight.data = outer.transpose(0, 1).flatten(1)
    with torch.no_grad():
        out = _fit_heads(narrow, attention, inputs, seen, basis)
        query, key, value = (
            getattr(narrow, name)(inputs).unflatten(1, (HEADS, 2)) for name in ("query", "key", "value")
        )
    old = {name: seen[name].unflatten(1, (HEADS, 4)) for name in maps}
    scores = torch.einsum("nhi,mhi->hnm", query, key) * narrow.scaling
    expected = torch.einsum("nhi,mhi->hnm", old["query"], old["key"]) * attention.self.scaling
    torch.testing.assert_close(scores, expected, atol=1e-2, rtol=1e-3)
    results = torch.einsum("dhi,nhi->hnd", out.unflatten(1, (HEADS, 2)), value)
    expected = torch.einsum("hdi,nhi->hnd", outer, old["value"])
    torch.testing.assert_close(results, expected, atol=1e-2, rtol=1e-3)


def test_a_layer_that_is_left_out_is_made_up_for():
    """The fitted layers against the same ones as they were."""
    teacher = model()
    fitted = shrunk(teacher, layers=[0, 1, 3]).model
    cut = cut_layers(teacher, TeacherLayers(layers=(0, 1, 3))).eval()
    assert fitted.num_parameters() == cut.num_parameters()
    assert unexplained(fitted, teacher) < 0.7 * unexplained(cut, teacher)


def test_a_basis_that_loses_nothing_loses_no_hidden_state():
    """Hidden states that lie in half the directions, as their LayerNorms see to, are kept whole but for the norm."""
    teacher = model()
    for name, parameter in teacher.named_parameters():
        if "LayerNorm" in name:
            parameter.data[WIDTH // 2 :] = 0
    made = shrunk(teacher, hidden_size=WIDTH // 2)
    assert min(made.cosines) > 0.96
    assert min(shrunk(model(), hidden_size=WIDTH // 2).cosines) < 0.93


def test_the_cosines_are_those_of_the_hidden_states():
    teacher = model()
    made = shrunk(teacher, intermediate_size=24)  # the basis is the identity
    hidden = [
        observe(net, sample(), {str(i): (layer, False) for i, layer in enumerate(net.base_model.encoder.layer)})
        for net in (made.model, teacher)
    ]
    for i, cosine in enumerate(made.cosines):
        got = functional.cosine_similarity(hidden[0][str(i)], hidden[1][str(i)]).mean()
        assert float(got) == pytest.approx(cosine, abs=1e-5)


def test_embeddings_are_fitted_where_the_corpus_is():
    """The error is of the embedding output; words that the corpus has often lose less than those it has not."""
    teacher = model().requires_grad_(False)
    counts = torch.ones(WORDS, dtype=torch.long)
    counts[2:20] = 1000
    fields = teacher.config.to_dict() | {"embedding_size": 6, "model_type": "electra"}
    config = AutoConfig.for_model(**fields)
    student = AutoModelForTokenClassification.from_config(config).eval()
    error = fit_embeddings(student, teacher, counts, sample(), torch.eye(WIDTH))
    assert 0 < error < 0.6

    def lost(first, last):
        ids = torch.arange(first, last)[:, None]
        got = student.electra.embeddings_project(student.electra.embeddings(ids))
        return (got - teacher.bert.embeddings(ids)).square().mean().item()

    assert lost(2, 20) < 0.8 * lost(20, WORDS)
    wide = copy.deepcopy(config)
    wide.embedding_size = 22
    larger = AutoModelForTokenClassification.from_config(wide).eval()
    assert fit_embeddings(larger, teacher, counts, sample(), torch.eye(WIDTH)) < 0.5 * error


def test_the_same_gives_the_same_and_leaves_the_teacher_and_the_dice_alone():
    teacher = model()
    before, dice = copy.deepcopy(teacher.state_dict()), torch.get_rng_state()
    one = shrunk(teacher, embedding_size=12, hidden_size=20).model.state_dict()
    torch.randn(3)
    two = shrunk(teacher, embedding_size=12, hidden_size=20).model.state_dict()
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    torch.set_rng_state(dice)
    shrunk(teacher, embedding_size=12)
    assert torch.equal(torch.get_rng_state(), dice)


def test_layers_of_another_family_are_cut_as_they_are():
    teacher = model("electra")
    cut = cut_layers(teacher, TeacherLayers(layers=2)).eval()
    assert torch.equal(logits(shrunk(teacher, layers=2).model), logits(cut))


def test_layers_are_spread_evenly():
    teacher = model()
    student = shrunk(teacher, layers=2, evenly=True).model
    assert torch.equal(logits(student), logits(shrunk(teacher, layers=[0, 3]).model))
    assert not torch.equal(logits(student), logits(shrunk(teacher, layers=2).model))


@pytest.mark.parametrize(("kind", "fields", "sentence"), [
    ("bert", {"hidden_size": 25}, "student.model.hidden_size is 25 where there are 24: give at most 24"),
    ("bert", {"heads": 7}, "student.model.heads is 7 where there are 6: give at most 6"),
    ("bert", {"embedding_size": 21, "hidden_size": 20},
     "student.model.embedding_size is 21 where there are 20: give at most 20"),
    ("bert", {"intermediate_size": 49}, "student.model.intermediate_size is 49 where there are 48: give at most 48"),
    ("bert", {"hidden_size": 18}, "student.model has 4 heads for hidden_size 18, while a head of the teacher's is 4 "
     "wide: give a hidden_size of which a head's share is whole and at most 4"),
    ("bert", {"heads": 3}, "student.model has 3 heads for hidden_size 24, while a head of the teacher's is 4 "
     "wide: give a hidden_size of which a head's share is whole and at most 4"),
    ("roberta", {"embedding_size": 8}, "student.model.embedding_size is given for a teacher of kind roberta: "
     "leave it out: only bert can be made smaller so"),
    ("electra", {"hidden_size": 8}, "student.model.hidden_size is given for a teacher of kind electra: "
     "leave it out: only bert and roberta and xlm-roberta can be made smaller so"),
    ("bert", {"layers": 5, "hidden_size": 8},
     "student.model.layers is 5 while the teacher has 4 layers: give at most 4, or a list from 0 to 3, each once"),
    ("bert", {"vocabulary": {}}, "student.model.vocabulary is given for a task without text: leave it out"),
])  # fmt: skip
def test_what_cannot_be_is_refused(kind, fields, sentence):
    with pytest.raises(ModelError) as caught:
        shrunk(model(kind), **fields)
    assert str(caught.value) == sentence


# ---------------------------------------------------------------------------------------------------- in a run

SMALLER = {
    "kind": "shrunk", "layers": 1, "vocabulary": {}, "embedding_size": 8, "hidden_size": 8, "intermediate_size": 16,
}  # fmt: skip


@pytest.fixture
def small(ner):
    return ner | {"student": {"model": SMALLER}, "hard_baseline": False, "seeds": [0, 1]}


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())


@pytest.mark.slow
def test_a_run_starts_all_its_students_from_the_same_smaller_teacher(small, tmp_path, capsys):
    small["train"]["epochs"] = 0.01  # one step
    small["train"]["learning_rate"] = 1e-12
    run = tmp_path / "run"
    metrics = pipeline.run(parse_recipe(small, folder=tmp_path), run)
    start = run / "student-shrunk"
    said = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("student-shrunk: "))
    student = AutoModelForTokenClassification.from_pretrained(start)
    assert f"{student.num_parameters():,} parameters" in said
    assert metrics["student"]["parameters"] == student.num_parameters()
    assert list(student.config.id2label.values()) == TAGS
    tokenizer = AutoTokenizer.from_pretrained(start)
    assert len(tokenizer) == student.config.vocab_size < len(AutoTokenizer.from_pretrained(small["teacher"]["model"]))
    for seed in (0, 1):
        trained = run / f"student/seed-{seed}"
        assert all(torch.allclose(value, weights(trained)[name], atol=1e-6) for name, value in weights(start).items())
        assert len(AutoTokenizer.from_pretrained(trained)) == len(tokenizer)
    assert metrics["student_initial"]["metrics"]["f1"] == metrics["student"]["metrics"]["f1"]
    stamp = (start / "model.safetensors").stat().st_mtime_ns
    small["temperature"] = 3
    pipeline.run(parse_recipe(small, folder=tmp_path), run)
    assert (start / "model.safetensors").stat().st_mtime_ns == stamp


def test_a_lost_start_is_made_again_to_the_same(small, tmp_path):
    recipe = parse_recipe(small, folder=tmp_path)
    with RunFolder(tmp_path / "run") as folder:
        job = open_job(recipe, folder)
        stages.train_teacher(job)
        teacher = teachers.load_teacher(job)
        stages.shrunk(job, recipe.student, teacher)
        first = weights(job.path / "student-shrunk")
        shutil.rmtree(job.path / "student-shrunk")
        model, _ = stages.build_student(job, teacher, 1)
        assert same(first, weights(job.path / "student-shrunk"))
        assert all(torch.equal(value, first[name]) for name, value in model.state_dict().items())


def test_the_texts_of_the_recipe_bring_their_words(small, tmp_path):
    (tmp_path / "more.txt").write_text("carla paris\n" * 3)
    (tmp_path / "train.conll").write_text("bob B-PER\nlives O\nin O\noslo B-LOC\n\nanna B-PER\n")
    found = {}
    for name, text in (("without", []), ("with", ["./more.txt"])):
        small["student"] = {"model": {"kind": "shrunk", "vocabulary": {"text": text}}}
        recipe = parse_recipe(small, folder=tmp_path)
        with RunFolder(tmp_path / name) as folder:
            job = open_job(recipe, folder)
            stages.train_teacher(job)
            stages.shrunk(job, recipe.student, teachers.load_teacher(job))
        found[name] = set(AutoTokenizer.from_pretrained(tmp_path / name / "student-shrunk").get_vocab())
    assert found["with"] - found["without"] == {"carla", "paris"}


@pytest.mark.parametrize(("changes", "error", "sentence"), [
    ({"targets": {"kind": "live"}}, ModelError,
     "targets.kind is live while student.model.vocabulary gives the student a tokenizer of its own: "
     "set targets.kind to store, where rows are matched by word"),
    ({"student": {"model": SMALLER, "tokenizer": "./x"}}, ModelError,
     "student.tokenizer is given for a teacher made smaller: remove it; its teacher's is taken"),
    ({"student": {"model": SMALLER, "pretrain": {"text": "./train.conll"}}}, ModelError,
     "student.pretrain is given for its trained teacher made smaller: remove it, or describe a config"),
    ({"student": {"model": SMALLER | {"vocabulary": {"text": ["./none.txt"]}}}}, DataError,
     "student.model.vocabulary.text 'FOLDER/none.txt' does not exist: give the path of a text file"),
])  # fmt: skip
def test_what_does_not_go_together_is_refused(ner, tmp_path, changes, error, sentence):
    ner["teacher"].pop("train")
    ner["teacher"]["model"] = str(tmp_path / "taught")
    save_teacher(tmp_path / "taught")
    with pytest.raises(error) as caught:
        pipeline.run(parse_recipe(ner | {"student": {"model": SMALLER}} | changes, folder=tmp_path), tmp_path / "run")
    assert str(caught.value).replace(str(tmp_path), "FOLDER") == sentence


@pytest.mark.slow
def test_a_teacher_of_the_same_words_may_be_live(ner, tmp_path):
    ner["student"] = {"model": {k: v for k, v in SMALLER.items() if k != "vocabulary"}}
    metrics = pipeline.run(parse_recipe(ner | {"targets": {"kind": "live"}}, folder=tmp_path), tmp_path / "run")
    assert metrics["student"]["metrics"]["f1"] > 0.9


def test_layers_are_spread_by_number_only(ner):
    ner["student"] = {"model": {"kind": "shrunk", "layers": [0, 1], "evenly": True}}
    with pytest.raises(RecipeError, match="has evenly without a number of layers: give layers as a number"):
        parse_recipe(ner)
