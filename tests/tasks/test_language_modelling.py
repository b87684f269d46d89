"""Next tokens: each is predicted once, and perplexity is that of a loop over positions, token by token."""

import json
import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file
from transformers import BertConfig, BertLMHeadModel, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from setpoint import DistillationObjective, FrozenTeacher, TargetStore, evaluation, models, pipeline, teachers
from setpoint.errors import DataError, ModelError, RecipeError, RunError, TargetError
from setpoint.generating import generate, read_generated
from setpoint.insight.explain_run import explain_run
from setpoint.job import open_job
from setpoint.pretraining import END_OF_TEXT, train_byte_tokenizer, train_tokenizer
from setpoint.recipe import DataRecipe, PretrainedModel, StudentRecipe
from setpoint.recipe_data import GenerateRecipe
from setpoint.recipe_file import parse_recipe
from setpoint.run_folder import RunFolder
from setpoint.shipping.export import export
from setpoint.shipping.refresh import refresh
from setpoint.shipping.shipped import Shipped
from setpoint.surgery import set_dropout
from setpoint.tasks.base import Splits
from setpoint.tasks.language_modelling import LanguageModelling, token_bytes
from setpoint.teachers import load_teacher
from setpoint.training import DistillationTrainer
from test_training import arguments

TEXTS = ["the cat sat on the mat", "the dög sat", "", "a cat ate the döner, and the cat sat on it"]


def causal(tokenizer, seed=0, more=0, **changes):
    torch.manual_seed(seed)
    ends = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
    config = GPT2Config(vocab_size=len(tokenizer) + more, **ends, **sizes | changes)
    return GPT2LMHeadModel(config).eval()


def llama(tokenizer, seed=0):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=32, **sizes)).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return train_byte_tokenizer(TEXTS * 3, 300)


def task(max_length=8, **data):
    return LanguageModelling(DataRecipe(dataset="none", max_length=max_length, **data))


def split(texts=TEXTS, name="test"):
    return Dataset.from_dict({"id": [f"{name}-{i}" for i in range(len(texts))], "text": texts})


def stream(tokenizer, texts=TEXTS):
    """All tokens of a split, by a loop."""
    found = []
    for text in texts:
        found += tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    return found


def measured(model, tokenizer, found, batch_size=3):
    examples = found.encode(split(), tokenizer)
    source = FrozenTeacher(model, found.classes((), tokenizer), reading=found)
    scored = evaluation.predict(source, examples, found.collate(tokenizer), batch_size, keep=found.scored)
    return found.metrics(scored, found.references(examples), source.labels), scored, examples


# ---------------------------------------------------------------------------------------------------- the shift


@pytest.mark.parametrize("length", [1, 2, 5, 8, 64])
def test_each_token_but_the_first_is_predicted_once(tokenizer, length):
    examples = task(length).encode(split(), tokenizer)
    whole = stream(tokenizer)
    assert np.concatenate([one["input_ids"] for one in examples]).tolist() == whole[:-1]
    assert np.concatenate([one["labels"] for one in examples]).tolist() == whole[1:]
    assert all(len(one["input_ids"]) == len(one["labels"]) == len(one["task_bytes"]) for one in examples)
    assert [len(one["labels"]) for one in examples[:-1]] == [length] * (len(examples) - 1)
    assert len({one["id"] for one in examples}) == len(examples)
    assert examples[0]["id"] == "test-0 block 0"


@pytest.mark.parametrize("make", [causal, llama])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_perplexity_is_that_of_a_loop_over_positions(tokenizer, make, batch_size):
    model = make(tokenizer).double()
    whole, length = stream(tokenizer), 5
    nats, right = [], []
    for position in range(1, len(whole)):
        start = (position - 1) // length * length  # where the block of this row begins
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([whole[start:position]])).logits[0, -1].numpy()
        shares = np.exp(logits - logits.max())
        nats.append(-math.log(shares[whole[position]] / shares.sum()))
        right.append(int(logits.argmax()) == whole[position])
    metrics, scored, _ = measured(model, tokenizer, task(length), batch_size)
    assert sum(map(len, scored)) == len(whole) - 1
    first = len(tokenizer(TEXTS[0].split()[0])["input_ids"])
    assert first == 1  # the one token that nothing predicts is the word "the"
    size = len("".join(TEXTS).encode()) - len("the")
    assert metrics["perplexity"] == pytest.approx(math.exp(sum(nats) / len(nats)), rel=1e-5)
    assert metrics["likelihood"] == pytest.approx(1 / metrics["perplexity"])
    assert metrics["accuracy"] == pytest.approx(sum(right) / len(right))
    assert metrics["bits_per_byte"] == pytest.approx(sum(nats) / math.log(2) / size, rel=1e-5)


def test_scores_of_parts_weigh_rows_not_examples(tokenizer):
    _, scored, examples = measured(causal(tokenizer), tokenizer, task(5))
    scores = task(5).scores(scored, task(5).references(examples), ())
    part = np.array([0, len(scored) - 1, len(scored) - 1])  # the last is shorter, and comes twice
    rows = np.concatenate([scored[i] for i in part]).astype(np.float64)
    assert len(scored[-1]) < 5
    assert scores["likelihood"](part) == pytest.approx(math.exp(rows[:, 0].mean()))
    assert scores["accuracy"](part) == pytest.approx(rows[:, 1].mean())


@pytest.mark.parametrize("make", [causal, llama])
def test_the_loss_of_a_step_is_the_mean_over_its_tokens(tokenizer, tmp_path, make):
    """Also where micro-batches differ in tokens; transformers counts one fewer each example for causal models."""
    found, model = task(7), make(tokenizer)
    set_dropout(model, 0.0)
    examples = found.encode(split(), tokenizer)[-2:]
    assert len(examples[0]["labels"]) != len(examples[1]["labels"])
    batch = found.collate(tokenizer)(examples)
    rows = batch["labels"] != -100
    expected = torch.nn.functional.cross_entropy(
        model(input_ids=batch["input_ids"]).logits[rows].double(), batch["labels"][rows]
    )
    trainer = DistillationTrainer(
        model=model, objective=DistillationObjective(alpha=0.0), train_dataset=examples, reading=found,
        data_collator=found.collate(tokenizer),
        args=arguments(tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=2, max_steps=1),
    )  # fmt: skip
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected.item(), rel=1e-5)


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_bytes_of_tokens_add_up_to_those_of_the_text(tokenizer, texts):
    texts = [text.encode("utf-8", "ignore").decode() for text in texts] + ["x"]
    examples = task(3).encode(split(texts), tokenizer)
    first = token_bytes(texts[0], tokenizer(texts[0], return_offsets_mapping=True)["offset_mapping"])[0]
    counted = sum(int(one["task_bytes"].sum()) for one in examples)
    assert counted == len("".join(texts).encode()) - first


# ---------------------------------------------------------------------------------------------------- vocabularies


def test_entries_that_no_token_has_are_cut_off(tokenizer):
    """Vocabularies are often padded to a round number; what the padding is given is nobody's probability."""
    small = causal(tokenizer)
    large = causal(tokenizer, more=20)
    large.transformer.load_state_dict(small.transformer.state_dict() | {
        "wte.weight": torch.cat([small.transformer.wte.weight, torch.ones(20, 16)])
    })  # fmt: skip
    one, two = (measured(model, tokenizer, task())[0] for model in (small, large))
    assert one == pytest.approx(two)


def test_names_of_tokens_are_text_and_each_is_there_once(tokenizer):
    names = task().classes((), tokenizer)
    assert len(set(names)) == len(names) == len(tokenizer)
    assert " cat" in names
    assert END_OF_TEXT in names


def test_a_tokenizer_of_bytes_loses_nothing_and_is_the_same_each_time(tokenizer):
    again = train_byte_tokenizer(TEXTS * 3, 300)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    for text in ("naïve 日本", "UPPER lower\n\ttabs"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]).removeprefix(" ") == text
    assert tokenizer.eos_token == END_OF_TEXT
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda t: causal(t, more=-1), "embeddings where there are"),
        (
            lambda t: BertLMHeadModel(BertConfig(vocab_size=len(t), hidden_size=16, num_hidden_layers=1,
                                                 num_attention_heads=2, intermediate_size=16)),
            "the student is a BertLMHeadModel that sees the tokens it is to predict",
        ),
    ],
)  # fmt: skip
def test_models_that_cannot_do_it_are_refused(tokenizer, make, says):
    splits = Splits(split(), split(), split(), (), ())
    with pytest.raises(ModelError, match=says):
        task().check_model(make(tokenizer), splits, tokenizer, [], "student")
    task().check_model(causal(tokenizer), splits, tokenizer, [], "student")


def test_a_tokenizer_without_an_end_of_text_is_refused():
    with pytest.raises(ModelError, match="no end-of-text token"):
        task().encode(split(), train_tokenizer(TEXTS, 100))


def test_a_split_of_one_token_is_refused(tokenizer):
    with pytest.raises(DataError, match="the text of example 'test-0' is empty"):
        task().encode(split([""]), tokenizer)


# ---------------------------------------------------------------------------------------------------- answers


def test_an_answer_is_the_likelihood_of_the_text_and_what_comes_next(tokenizer):
    model, found, text = causal(tokenizer), task(32), "the cat"
    examples = found.encode_inputs([text, ""], tokenizer)
    source = FrozenTeacher(model, found.classes((), tokenizer), reading=found)
    logits = evaluation.predict(source, examples, found.collate(tokenizer))
    shares = [found.probabilities(torch.from_numpy(rows), 1.0).numpy() for rows in logits]
    answer, empty = found.answers_to([text, ""], examples, shares, source.labels)
    ids = [tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]
    with torch.no_grad():
        log_probs = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    expected = sum(float(log_probs[i, token]) for i, token in enumerate(ids[1:]))
    assert answer["log_likelihood"] == pytest.approx(expected, rel=1e-4)
    assert answer["perplexity"] == pytest.approx(math.exp(-expected / (len(ids) - 1)), rel=1e-4)
    assert answer["tokens"] == len(ids) - 1
    best = int(log_probs[-1].argmax())
    assert answer["next"][0] == {
        "token": source.labels[best], "probability": pytest.approx(float(log_probs[-1, best].exp()), abs=1e-5)
    }  # fmt: skip
    assert (empty["tokens"], empty["log_likelihood"], empty["perplexity"]) == (0, 0.0, None)
    assert len(empty["next"]) == 5


# ---------------------------------------------------------------------------------------------------- the whole line


WORDS = {"who": ["cat", "dog", "cow"], "does": ["sees", "hears"], "what": ["milk", "grass"]}


def corpus(folder, n=60):
    rng = np.random.default_rng(0)
    for name, count in (("train", n), ("validation", 12), ("test", 12)):
        lines = [" ".join(["the", *(str(rng.choice(words)) for words in WORDS.values())]) for _ in range(count)]
        (folder / f"{name}.csv").write_text("text\n" + "\n".join(lines) + "\n")


def recipe(folder, **changes):
    corpus(folder)
    sizes = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16}
    raw = {
        "name": "tiny", "task": "causal-language-modelling",
        "data": {name: f"./{name}.csv" for name in ("train", "validation", "test")} | {"max_length": 16},
        "teacher": {
            "model": {"kind": "config", "config": sizes | {"n_embd": 32}}, "new_tokenizer": 290,
            "train": {"epochs": 12, "batch_size": 4, "learning_rate": 1e-2},
        },
        "student": {"model": {"kind": "config", "config": sizes}},
        "temperature": 1, "train": {"epochs": 4, "batch_size": 4, "learning_rate": 1e-2},
    }  # fmt: skip
    return parse_recipe(raw | changes, folder=folder)


@pytest.mark.parametrize("kind", ["live", "store"])
def test_a_run_from_raw_text(tmp_path, kind):
    metrics = pipeline.run(recipe(tmp_path, targets={"kind": kind}), tmp_path / "run")
    assert metrics["metric"] == "likelihood"
    assert metrics["beside"] == ["perplexity", "bits_per_byte"]
    # Three choices a sentence, of 3, 2 and 2 words: at least log 12 nats in it, however it is cut into tokens.
    teacher, student, untrained = (metrics[name]["metrics"] for name in ("teacher", "student", "student_initial"))
    assert teacher["accuracy"] > 0.4
    assert untrained["perplexity"] > 200
    assert teacher["perplexity"] < 6
    assert student["perplexity"] < 60
    assert metrics["student"]["agreement"]["top1"] > 0.2
    for folder in ("teacher", "student/seed-0", "student_hard/seed-0"):
        if kind == "live":
            assert (tmp_path / f"run/{folder}/config.json").is_file()
    assert (tmp_path / "run/teacher/tokenizer.json").is_file()
    assert (tmp_path / "run/student/seed-0/tokenizer.json").is_file()


def test_a_teacher_writes_what_its_student_learns_from(tmp_path):
    """Sequence-level distillation: once, seeded, and for distilled students alone."""
    written = {"examples": 70, "prompt_tokens": 2, "top_k": 50, "instead": True}
    data = recipe(tmp_path).data.model_dump(mode="json", exclude_none=True)
    raw = {"data": data | {"generate": written}, "targets": {"dtype": "float32"}}
    raw["data"].pop("limit", None)
    metrics = pipeline.run(recipe(tmp_path, **raw), tmp_path / "run")
    ids = load_file(tmp_path / "run/generated/ids.safetensors")["ids"]
    assert ids.shape == (70, 17)
    told = [json.loads(line)["text"] for line in (tmp_path / "run/generated/texts.jsonl").read_text().splitlines()]
    assert len(told) == 70
    assert sum("the" in text and "milk" in text for text in told) > 10  # of the language that the teacher has learnt
    found = RunFolder(tmp_path / "run")
    steps = {kind: found.mark(f"{kind}-seed-0")["result"]["log"][-1]["step"] for kind in ("student", "student_hard")}
    assert steps["student"] == 4 * math.ceil(70 / 4)
    assert steps["student_hard"] < steps["student"]
    before = (tmp_path / "run/generated/ids.safetensors").stat().st_mtime_ns
    again = pipeline.run(recipe(tmp_path, **raw), tmp_path / "run")
    assert again == metrics
    assert (tmp_path / "run/generated/ids.safetensors").stat().st_mtime_ns == before
    job = open_job(recipe(tmp_path, **raw), found)
    teacher = load_teacher(job)
    prompts = [example["input_ids"][:2].tolist() for example in job.encoded("train", teacher.processor)]
    assert all(own[:2].tolist() in prompts for own in ids)
    store = TargetStore.open(tmp_path / "run/targets")
    assert set(store.ids) == {f"generated-{i}" for i in range(70)} | {
        one["id"] for one in job.encoded("validation", teacher.processor)
    }
    own = read_generated(tmp_path / "run/generated")[3]
    batch = job.task.collate(teacher.processor)([own])
    assert torch.allclose(store(batch), teacher.source(batch), atol=1e-4)
    page = (tmp_path / "run/report.html").read_text()
    assert 'id="samples"' in page


def test_a_stopped_teacher_writes_the_same_in_the_end(tokenizer, tmp_path):
    model, examples = causal(tokenizer), task(6).encode(split(), tokenizer)
    how = GenerateRecipe(examples=100, prompt_tokens=3, top_p=0.9)
    for name in ("one", "two"):
        (tmp_path / name / "scratch").mkdir(parents=True)
        generate(model, examples, how, tmp_path / name, tmp_path / name / "scratch", classes=len(tokenizer))
        if name == "two":  # as if stopped after its first part
            first, second = sorted((tmp_path / "two/scratch").iterdir())
            second.unlink()
            (tmp_path / "two/ids.safetensors").unlink()
            stamp = first.stat().st_mtime_ns
            generate(model, examples, how, tmp_path / "two", tmp_path / "two/scratch", classes=len(tokenizer))
            assert first.stat().st_mtime_ns == stamp
    one, two = (load_file(tmp_path / name / "ids.safetensors")["ids"] for name in ("one", "two"))
    assert one.shape == (100, 7)
    assert np.array_equal(one, two)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"teacher.tokenizer": "./here"}, RecipeError, "has new_tokenizer beside one of its own"),
        ({"teacher.train": None}, RecipeError, "has new_tokenizer for a model that learns nothing"),
        ({"student.pretrain": {"text": "./train.csv", "new_tokenizer": True, "vocab_size": 100, "train": {"epochs": 1},
                               "max_length": 16, "objective": "causal"}},
         RecipeError, "'student.pretrain.new_tokenizer' gives the student another tokenizer than its teacher's, while"),
        ({"data.generate": {"examples": 3, "prompt_tokens": 17}}, DataError, "prompt_tokens is 17 while the longest"),
        ({"teacher.model.config": {"model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": 1, "n_positions": 8}},
         ModelError, "data.max_length is 16 while the teacher reads 8 tokens at most"),
        ({"tune": {"population": True}}, RecipeError, "tune.population trains students together"),
    ],
)  # fmt: skip
def test_bad_recipes_are_refused(tmp_path, changes, error, says):
    raw = json.loads(recipe(tmp_path).model_dump_json(exclude_none=True, exclude_unset=True))
    raw["teacher"]["train"]["epochs"] = raw["train"]["epochs"] = 1
    for path, value in changes.items():
        *parents, last = path.split(".")
        section = raw
        for parent in parents:
            section = section[parent]
        section[last] = value
    with pytest.raises(error, match=says):
        pipeline.run(parse_recipe(raw, folder=tmp_path), tmp_path / "run")


def test_what_no_teacher_can_write_is_refused(tmp_path):
    raw = {"task": "image-classification", "data": {"dataset": "digits", "generate": {"examples": 3}}}
    model = {"kind": "config", "config": {"model_type": "setpoint-convnet", "widths": [4]}}
    raw |= {"name": "x", "teacher": {"model": model, "train": {}}, "student": {"model": model}}
    wanted = parse_recipe(raw)
    with pytest.raises(RecipeError, match="whose examples no teacher can write"):
        open_job(wanted, RunFolder(tmp_path / "run"))


def test_a_store_that_is_too_large_is_refused_before_it_is_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(teachers, "MOST_BYTES", 1e5)
    monkeypatch.setattr(teachers, "MANY_BYTES", 1e4)
    with pytest.raises(TargetError, match="and more than 0.0001 are not made: set targets.kind to live"):
        pipeline.run(recipe(tmp_path, targets={"kind": "store"}), tmp_path / "run")
    assert not (tmp_path / "run/targets").exists()


@pytest.mark.parametrize("tied", [True, False])
def test_adapters_are_merged_into_a_student_of_tied_embeddings(tokenizer, tmp_path, tied):
    teacher = causal(tokenizer, tie_word_embeddings=tied)
    wanted = StudentRecipe(model={"kind": "layers", "layers": 1}, lora={"rank": 2})
    student = models.build_student(wanted, teacher, task().model_class(), None, tokenizer)
    task().check_model(student, Splits(split(), split(), split(), (), ()), tokenizer, [], "student")
    learns = {name for name, weight in student.named_parameters() if weight.requires_grad}
    assert any("lora" in name for name in learns)
    assert any("lm_head" in name for name in learns) is not tied
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in student.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn_like(weight))
    ids = torch.tensor([stream(tokenizer)[:9]])
    with torch.no_grad():
        before = student.eval()(input_ids=ids).logits
    models.save_model(student, tokenizer, tmp_path / "student")
    again = models.load_model(PretrainedModel(model=str(tmp_path / "student")), task().model_class(), None)
    with torch.no_grad():
        assert torch.allclose(again.eval()(input_ids=ids).logits, before, atol=1e-5)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run whose hard loss is taken against what the teacher draws among its two likeliest tokens."""
    folder = tmp_path_factory.mktemp("lm")
    hard = {"alpha": 0.5, "hard": {"kind": "teacher_sample", "top_k": 2}}
    metrics = pipeline.run(recipe(folder, objective=hard, targets={"kind": "live"}), folder / "run")
    return folder / "run", metrics


def test_a_student_learns_from_tokens_drawn_among_the_likeliest(finished):
    _, metrics = finished
    untrained, drawn = (metrics[name] for name in ("student_initial", "student"))
    assert drawn["agreement"]["top1"] > 2 * untrained["agreement"]["top1"]
    assert drawn["metrics"]["perplexity"] < untrained["metrics"]["perplexity"] / 3


@pytest.mark.parametrize("form", ["safetensors", "onnx"])
def test_an_exported_student_tells_how_likely_a_text_is(finished, form):
    run, _ = finished
    place, manifest, _ = export(run, form)
    shipped = Shipped.open(place)
    likely, unlikely = shipped.predict(["the cat sees milk", "zq zq zq zq zq"])
    assert likely["log_likelihood"] > unlikely["log_likelihood"]
    tokenizer = models.load_tokenizer(run / "student/seed-0")
    model = models.load_model(PretrainedModel(model=str(run / "student/seed-0")), task().model_class(), None).eval()
    ids = [tokenizer.eos_token_id, *tokenizer("the cat sees milk")["input_ids"]]
    with torch.no_grad():
        rows = (model(input_ids=torch.tensor([ids])).logits[0].double() / manifest.temperature).log_softmax(-1)
    expected = sum(float(rows[i, token]) for i, token in enumerate(ids[1:]))
    assert likely["log_likelihood"] == pytest.approx(expected, rel=1e-3)
    assert len(likely["next"]) == 5


def test_the_report_shows_what_each_model_writes(finished):
    page = (finished[0] / "report.html").read_text()
    shown = page[page.index('<section id="samples"') :].split("</section>")[0]
    for name in ("teacher", "student, hard labels", "student, distilled"):
        assert shown.count(f"<h3>{name}</h3>") == 1
    assert shown.count("<pre") == 9
    assert END_OF_TEXT not in shown
    assert explain_run(finished[0]).classes > 256  # the vocabulary


def test_refreshing_is_refused_in_a_sentence(finished, tmp_path):
    (tmp_path / "new.csv").write_text("text\nthe cat\n")
    with pytest.raises(RunError, match="the run is of causal-language-modelling, which setpoint refresh does not know"):
        refresh(finished[0], tmp_path / "new.csv")
