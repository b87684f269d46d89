"""Next tokens: each is predicted once, and perplexity is that of a loop over positions, token by token."""

import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig, BertLMHeadModel, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from setpoint import DistillationObjective, FrozenTeacher, evaluation, pipeline
from setpoint.errors import DataError, ModelError
from setpoint.pretraining import END_OF_TEXT, train_byte_tokenizer, train_tokenizer
from setpoint.recipe import DataRecipe
from setpoint.recipe_file import parse_recipe
from setpoint.tasks.base import Splits
from setpoint.tasks.language_modelling import LanguageModelling, token_bytes
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


def test_the_loss_of_a_step_is_the_mean_over_its_tokens(tokenizer, tmp_path):
    """Also where micro-batches differ in tokens; transformers counts one fewer each example for causal models."""
    found, model = task(7), causal(tokenizer, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
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
        task().check_model(make(tokenizer), splits, tokenizer, "student")
    task().check_model(causal(tokenizer), splits, tokenizer, "student")


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
    answer, empty = found.answers(found.with_encoding([text, ""], examples), shares, source.labels)
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
