import gzip
import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForTokenClassification,
    BertConfig,
    BertForMaskedLM,
)

from setpoint import pretraining
from setpoint.errors import DataError, ModelError
from setpoint.models import load_model, load_tokenizer
from setpoint.pretraining import MaskedTexts, pretrain, read_texts, train_tokenizer
from setpoint.recipe import ConfigModel, PretrainedModel, PretrainRecipe, TrainRecipe
from setpoint.surgery import usable_positions
from tasks.wordpiece import CLS, MASK, PAD, SEP, wordpiece

SIZES = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 16,
}  # fmt: skip
BERT = ConfigModel(config={"model_type": "bert"} | SIZES)
GPT = ConfigModel(config={"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16})
LLAMA = ConfigModel(config={"model_type": "llama"} | SIZES)
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
LINES = [" ".join(WORDS[(start + i) % 8] for i in range(8)) for start in range(8)] * 2
"""Each word tells the next one."""


@pytest.fixture(scope="module")
def tokenizer():
    return wordpiece(WORDS)


def write(path, content):
    content = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


def recipe(tmp_path, objective="masked", text=LINES, max_length=16, saving=False, **train):
    arguments = {"logging_steps": 1, "disable_tqdm": True, "use_cpu": True} | (
        {} if saving else {"save_strategy": "no"}
    )
    path = write(tmp_path / "text.txt", "\n".join(text))
    return PretrainRecipe(
        objective=objective, text=path, max_length=max_length,
        train=TrainRecipe(**{"batch_size": 4, "learning_rate": 1e-2, "epochs": 3.0} | train, arguments=arguments),
    )  # fmt: skip


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def message(kind, call, *args, **options):
    with pytest.raises(kind) as caught:
        call(*args, **options)
    return str(caught.value)


# ---------------------------------------------------------------------------------------------------- texts


@pytest.mark.parametrize("name", ["x.txt", "x", "x.txt.gz", "x.gz", "x.json"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_text_is_a_line(tmp_path, name, end):
    path = write(tmp_path / name, end.join(["", "  the cat ", " ", '{"text": "Zürich"}', "", "the end"]))
    assert read_texts(path) == ["the cat", '{"text": "Zürich"}', "the end"]


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_of_jsonl_the_text_is_the_field_of_that_name(tmp_path, name):
    rows = [{"text": "the\ncat ", "id": 3}, {"text": " "}, {"title": "x", "text": "“Zürich”"}]
    path = write(tmp_path / name, "\n" + "\n\n".join(json.dumps(row) for row in rows))
    assert read_texts(path) == ["the\ncat", "“Zürich”"]


@pytest.mark.parametrize(("name", "content"), [("x.txt", "the cat"), ("x.jsonl", '{"text": "the cat"}')])
def test_a_byte_order_mark_is_no_text(tmp_path, name, content):
    assert read_texts(write(tmp_path / name, "\N{BYTE ORDER MARK}" + content)) == ["the cat"]


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\x0c"])
@pytest.mark.parametrize("name", ["x.jsonl", "x.txt"])
def test_a_sign_of_unicode_ends_no_line(tmp_path, name, sign):
    text = f"a{sign}b"
    lines = [json.dumps({"text": text}, ensure_ascii=False), '{"text": "c"}'] if name == "x.jsonl" else [text, "c"]
    assert read_texts(write(tmp_path / name, "\n".join(lines))) == [text, "c"]


def damaged():
    data = bytearray(gzip.compress(bytes(range(256)) * 30, mtime=0))
    data[20] ^= 0xFF
    return bytes(data)


@pytest.mark.parametrize("there", ["nothing", "a folder"])
def test_a_text_that_is_not_there_is_refused(tmp_path, there):
    if there == "a folder":
        (tmp_path / "x.txt").mkdir()
    assert message(DataError, read_texts, tmp_path / "x.txt") == (
        f"pretrain.text '{tmp_path}/x.txt' does not exist: give the path of a text file"
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.txt", "Zürich".encode("latin-1")),
        ("x.txt.gz", b"plain"),
        ("x.txt.gz", gzip.compress(b"the cat" * 9, mtime=0)[:-9]),
        ("x.txt.gz", damaged()),
        ("x.txt.gz", gzip.compress("Zürich".encode("latin-1"), mtime=0)),
        ("x.jsonl", b'{"text": "a"}\n{"text": "b"'),
        ("x.jsonl", b'{"txt": "a"}'),
        ("x.jsonl", b'{"text": 3}'),
        ("x.jsonl", b'{"text": null}'),
        ("x.jsonl", b'{"text": ["a"]}'),
        ("x.jsonl", rb'{"text": "\ud800"}'),
        ("x.jsonl", b'{"text": ' + b"[" * 100_000),
        ("x.jsonl", b'["text"]'),
        ("x.jsonl", b"null"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert message(DataError, read_texts, tmp_path / name) == (
        f"pretrain.text '{tmp_path / name}' cannot be read: give UTF-8 text, one example a line, or JSONL with 'text'"
    )


@pytest.mark.parametrize(("name", "content"), [("x.txt", ""), ("x.txt", " \n\n"), ("x.jsonl", '{"text": " "}\n')])
def test_a_file_without_text_is_refused(tmp_path, name, content):
    path = write(tmp_path / name, content)
    assert message(DataError, read_texts, path) == f"pretrain.text '{path}' has no text: give a file with some"


# ---------------------------------------------------------------------------------------------------- a tokenizer


def test_a_new_tokenizer_knows_the_words_of_its_text():
    made = train_tokenizer(LINES, vocab_size=200, max_length=9)
    assert made.convert_ids_to_tokens(made("One, TWO zzz")["input_ids"]) == [
        "[CLS]",
        "one",
        "[UNK]",
        "two",
        "[UNK]",
        "[SEP]",
    ]
    assert made.convert_ids_to_tokens(made("six", "three")["input_ids"]) == ["[CLS]", "six", "[SEP]", "three", "[SEP]"]
    assert (made.pad_token, made.mask_token, made.model_max_length) == ("[PAD]", "[MASK]", 9)
    assert made.get_special_tokens_mask(made("one")["input_ids"], already_has_special_tokens=True) == [1, 0, 1]


def test_a_new_tokenizer_has_no_more_entries_than_asked_for():
    texts = ["".join(chr(97 + (i * j) % 26) for j in range(9)) for i in range(200)]
    assert len(train_tokenizer(texts, vocab_size=100)) == 100
    small = train_tokenizer(texts, vocab_size=100)
    pieces = small.tokenize(texts[7])
    assert len(pieces) > 1  # a word of its text in pieces, none of them unknown
    assert "".join(piece.removeprefix("##") for piece in pieces) == texts[7]


def test_the_same_texts_give_the_same_tokenizer():
    words = ["".join(chr(97 + (i * i + i * j + j * j) % 26) for j in range(3 + i % 5)) for i in range(400)]
    texts = [" ".join(words[i : i + 8]) for i in range(0, 400, 8)]
    first = train_tokenizer(texts, 200)
    assert len(first) == 200
    for _ in range(4):
        again = train_tokenizer(texts, 200)
        assert again.get_vocab() == first.get_vocab()
        assert again.backend_tokenizer.to_str() == first.backend_tokenizer.to_str()


def test_only_the_tokens_for_special_use_are_special():
    made = train_tokenizer(LINES, vocab_size=200)
    assert "##e" in made.get_vocab()
    assert set(made.all_special_tokens) == set(made.get_added_vocab()) == set(pretraining.SPECIAL.values())
    assert made.tokenize("##e") == ["[UNK]", "[UNK]", "e"]  # a text that looks like a piece is none


def test_a_new_tokenizer_tells_the_texts_of_a_pair_apart(tmp_path):
    made = train_tokenizer(LINES, vocab_size=200)
    made.save_pretrained(tmp_path / "t")
    for tokenizer in (made, load_tokenizer(tmp_path / "t")):
        assert tokenizer("six", "three")["token_type_ids"] == [0, 0, 0, 1, 1]


# ---------------------------------------------------------------------------------------------------- masks


def encoded(tokenizer, texts):
    pieces = tokenizer(texts, return_special_tokens_mask=True)
    return [dict(zip(pieces, values, strict=True)) for values in zip(*pieces.values(), strict=True)]


def long_texts(tokenizer, n=60):
    return encoded(tokenizer, [" ".join(WORDS[(7 * i + i * j) % 8] for j in range(40)) for i in range(n)])


def masked(tokenizer, texts, probability=0.3, seed=0, epoch=0):
    data = MaskedTexts(texts, tokenizer, probability, seed)
    data.set_epoch(epoch)
    return data


def test_masks_are_the_same_whatever_was_read_before(tokenizer):
    texts = long_texts(tokenizer, 9)
    data = masked(tokenizer, texts, seed=3, epoch=2)
    assert len(data) == 9
    in_order = [data[i] for i in range(9)]
    torch.manual_seed(123)
    again = masked(tokenizer, texts, seed=3, epoch=2)
    assert [again[i] for i in (8, 3, 3, 0)] == [in_order[i] for i in (8, 3, 3, 0)]
    again.set_epoch(1)
    again[5]
    again.set_epoch(2)
    assert again[5] == in_order[5]
    assert masked(tokenizer, texts + texts, seed=3, epoch=2)[4] == in_order[4]


def test_masks_differ_by_seed_epoch_and_place(tokenizer):
    text = long_texts(tokenizer, 3)[2]
    data = {
        (seed, epoch, place): tuple(masked(tokenizer, [text] * 12, seed=seed, epoch=epoch)[place]["labels"])
        for seed, epoch, place in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 11, 1), (0, 1, 11)]
    }
    assert len(set(data.values())) == len(data)


def test_reading_leaves_texts_and_global_randomness_alone(tokenizer):
    texts = long_texts(tokenizer, 2)
    before = [{name: list(values) for name, values in text.items()} for text in texts]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    masked(tokenizer, texts, 0.9)[1]
    assert torch.equal(torch.get_rng_state(), state)
    assert texts == before


@pytest.mark.parametrize("probability", [0.15, 0.5, 1.0])
def test_masked_are_the_asked_share_of_the_tokens_and_never_special_ones(tokenizer, probability):
    texts = long_texts(tokenizer)
    data = masked(tokenizer, texts, probability)
    counts = {"words": 0, "asked": 0, "mask": 0, "other": 0}
    for i, text in enumerate(texts):
        got = data[i]
        assert set(got) == {"input_ids", "token_type_ids", "attention_mask", "labels"}
        assert got["attention_mask"] == text["attention_mask"]
        for old, new, label in zip(text["input_ids"], got["input_ids"], got["labels"], strict=True):
            if old in (CLS, SEP):
                assert (new, label) == (old, -100)
                continue
            assert label in (old, -100)
            assert label == old or new == old  # a token that is not asked for is not hidden
            counts["words"] += 1
            counts["asked"] += label == old
            counts["mask"] += new == MASK and label == old
            counts["other"] += new not in (MASK, old) and label == old
    assert counts["words"] == 60 * 40

    def expect(count, n, share):
        assert abs(count - n * share) <= 5 * (n * share * (1 - share)) ** 0.5

    expect(counts["asked"], counts["words"], probability)
    # BERT's: 8 of 10 hidden, 1 another word (by chance the same one, 1 of 13, or the mask itself), 1 left as it is
    expect(counts["mask"], counts["asked"], 0.8 + 0.1 / 13)
    expect(counts["other"], counts["asked"], 0.1 * 11 / 13)


# ---------------------------------------------------------------------------------------------------- learning


def losses(log):
    return [entry["loss"] for entry in log if "loss" in entry]


def test_masked_pretraining_learns_which_word_is_hidden(tmp_path, tokenizer):
    made = recipe(tmp_path, text=LINES[:1] * 16, epochs=20.0, learning_rate=3e-2, batch_size=8)
    log = pretrain(BERT, tokenizer, made, tmp_path / "model", tmp_path / "scratch")
    assert sum(losses(log)[-10:]) < 0.5 * sum(losses(log)[:10])
    model = load_model(PretrainedModel(model=str(tmp_path / "model")), AutoModelForMaskedLM, None).eval()
    ids = tokenizer(LINES[0], return_tensors="pt")["input_ids"]
    places = torch.arange(1, 9)
    hidden = ids.repeat(8, 1)
    hidden[places - 1, places] = MASK
    guessed = model(input_ids=hidden).logits[places - 1, places].argmax(-1)
    assert (guessed == ids[0, 1:9]).sum() >= 7  # by chance 1


def test_causal_pretraining_learns_the_next_word(tmp_path, tokenizer):
    made = recipe(tmp_path, "causal", epochs=20.0)
    log = pretrain(GPT, tokenizer, made, tmp_path / "model", tmp_path / "scratch")
    assert sum(losses(log)[-10:]) < 0.5 * sum(losses(log)[:10])
    model = load_model(PretrainedModel(model=str(tmp_path / "model")), AutoModelForCausalLM, None).eval()
    ids = tokenizer(LINES[:8], return_tensors="pt")["input_ids"]
    guessed = model(input_ids=ids).logits.argmax(-1)
    assert (guessed[:, 1:-2] == ids[:, 2:-1]).float().mean() > 0.9  # by chance 1/8


@pytest.mark.parametrize(("objective", "spec"), [("masked", BERT), ("causal", BERT), ("causal", GPT)])
def test_the_dropout_is_the_one_that_is_asked_for(tmp_path, tokenizer, monkeypatch, objective, spec):
    seen = []

    class Watched(pretraining.Trainer):
        def training_step(self, model, *args, **kwargs):
            seen.extend(module.p for module in model.modules() if isinstance(module, torch.nn.Dropout))
            return super().training_step(model, *args, **kwargs)

    monkeypatch.setattr(pretraining, "Trainer", Watched)
    made = recipe(tmp_path, objective, epochs=1.0)
    pretrain(spec, tokenizer, made, tmp_path / "model", tmp_path / "scratch", dropout=0.3)
    assert set(seen) == {0.3}


RAGGED = ["one", "two three four five six", "seven eight one", "five six seven eight"]


def first_loss(tmp_path, monkeypatch, objective, spec, tokenizer):
    """The logged loss of the first step, and the batch and the model it was of."""
    seen = {}

    class Watched(pretraining.Trainer):
        def training_step(self, model, inputs, *args, **kwargs):
            if not seen:
                seen.update({name: tensor.clone() for name, tensor in inputs.items()})
                seen["weights"] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            return super().training_step(model, inputs, *args, **kwargs)

    monkeypatch.setattr(pretraining, "Trainer", Watched)
    made = recipe(tmp_path, objective, text=RAGGED, batch_size=4, epochs=1.0)
    made = made.model_copy(update={"mask_probability": 0.7})
    log = pretrain(spec, tokenizer, made, tmp_path / "model", tmp_path / "scratch")
    return losses(log)[0], seen


def test_the_masked_loss_is_of_the_hidden_words_alone(tmp_path, monkeypatch, tokenizer):
    still = ConfigModel(config=BERT.config | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    loss, seen = first_loss(tmp_path, monkeypatch, "masked", still, tokenizer)
    model = load_model(still, AutoModelForMaskedLM, None, tokenizer)
    model.load_state_dict(seen["weights"])
    logits = model.eval()(input_ids=seen["input_ids"], attention_mask=seen["attention_mask"]).logits.double()
    terms = [
        -torch.log_softmax(logits[b, i], -1)[label]
        for b, row in enumerate(seen["labels"].tolist()) for i, label in enumerate(row) if label != -100
    ]  # fmt: skip
    assert 6 < len(terms) < 13  # of 13 words about 7 in 10
    assert loss == pytest.approx((sum(terms) / len(terms)).item(), rel=1e-4)
    assert (seen["labels"][seen["input_ids"] == PAD] == -100).all()
    assert (seen["attention_mask"] == (seen["input_ids"] != PAD)).all()


def test_the_causal_loss_is_of_every_next_word_but_no_padding(tmp_path, monkeypatch, tokenizer):
    loss, seen = first_loss(tmp_path, monkeypatch, "causal", LLAMA, tokenizer)
    texts = {tuple(tokenizer(line)["input_ids"]) for line in RAGGED}
    terms, got = [], set()
    model = load_model(LLAMA, AutoModelForCausalLM, None, tokenizer)
    model.load_state_dict(seen["weights"])
    for row in seen["input_ids"].tolist():
        ids = tuple(i for i in row if i != PAD)
        got.add(ids)
        logits = model.eval()(input_ids=torch.tensor([ids])).logits[0].double()
        terms += [-torch.log_softmax(logits[i], -1)[ids[i + 1]] for i in range(len(ids) - 1)]
    assert got == texts
    assert loss == pytest.approx((sum(terms) / len(terms)).item(), rel=1e-4)


def test_the_body_goes_into_a_tagger_with_its_weights(tmp_path, tokenizer):
    pretrain(BERT, tokenizer, recipe(tmp_path, epochs=1.0), tmp_path / "model", tmp_path / "scratch", seed=4)
    learnt = BertForMaskedLM.from_pretrained(tmp_path / "model").bert.state_dict()
    tagger = load_model(PretrainedModel(model=str(tmp_path / "model")), AutoModelForTokenClassification, ("O", "X"))
    body = tagger.bert.state_dict()
    assert learnt.keys() == body.keys()
    assert same(body, learnt)
    fresh = load_model(BERT, AutoModelForMaskedLM, None, tokenizer, seed=4).bert.state_dict()
    assert [name for name in body if torch.equal(body[name], fresh[name])] == []  # every part of it has learnt
    assert tagger.classifier.out_features == 2
    again = load_tokenizer(tmp_path / "model")
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again(LINES)["input_ids"] == tokenizer(LINES)["input_ids"]


def test_pretraining_goes_on_from_a_checkpoint(tmp_path, tokenizer):
    torch.manual_seed(3)
    start = BertForMaskedLM(BertConfig(**SIZES, vocab_size=len(tokenizer), pad_token_id=PAD))
    start.save_pretrained(tmp_path / "start")
    spec = PretrainedModel(model=str(tmp_path / "start"))
    slow = recipe(tmp_path, epochs=1.0, learning_rate=1e-9)
    pretrain(spec, tokenizer, slow, tmp_path / "model", tmp_path / "scratch", seed=5)
    before, after = weights(tmp_path / "start"), weights(tmp_path / "model")
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-7)


def test_weights_masks_and_order_come_from_the_seed_and_nothing_else(tmp_path, monkeypatch, tokenizer):
    start, read = [], []

    class Watched(pretraining.Trainer):
        def __init__(self, model, **options):
            start.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
            super().__init__(model=model, **options)

    class WatchedTexts(MaskedTexts):
        def __getitem__(self, index):
            example = super().__getitem__(index)
            read.append((index, tuple(example["labels"])))
            return example

    monkeypatch.setattr(pretraining, "Trainer", Watched)
    monkeypatch.setattr(pretraining, "MaskedTexts", WatchedTexts)
    made, runs = recipe(tmp_path, epochs=1.0), {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(ord(name))
        read.clear()
        pretrain(BERT, tokenizer, made, tmp_path / name, tmp_path / f"scratch-{name}", seed=seed)
        order, masks = [index for index, _ in read], dict(read)
        runs[name] = (start[-1], order, masks, weights(tmp_path / name))
        assert sorted(order) == list(range(16))
    (start_a, order_a, masks_a, end_a), (start_b, order_b, masks_b, end_b), (start_c, order_c, masks_c, _) = (
        runs.values()
    )
    assert same(start_a, start_b)
    assert same(start_a, load_model(BERT, AutoModelForMaskedLM, None, tokenizer, seed=1).state_dict())
    assert (order_a, masks_a) == (order_b, masks_b)
    assert same(end_a, end_b)
    assert not any(torch.equal(t, start_c[name]) for name, t in start_a.items() if name.endswith("dense.weight"))
    assert order_a != order_c
    assert sum(masks_a[i] == masks_c[i] for i in range(16)) < 8  # a few may agree, most of all on no mask at all


def test_a_text_longer_than_the_longest_length_is_cut(tmp_path, monkeypatch, tokenizer):
    widths = set()

    class Watched(MaskedTexts):
        def __getitem__(self, index):
            example = super().__getitem__(index)
            widths.add(len(example["input_ids"]))
            return example

    monkeypatch.setattr(pretraining, "MaskedTexts", Watched)
    text = [" ".join(WORDS * 5), "one two"]
    pretrain(BERT, tokenizer, recipe(tmp_path, text=text, max_length=13), tmp_path / "m", tmp_path / "s")
    assert widths == {13, 4}


def logits_before_another_end(model):
    """The logits before the last token, twice: the last token is another one."""
    ids = torch.arange(5, 11).repeat(2, 1)
    ids[1, -1] = 12
    with torch.no_grad():
        return model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, :-1]


ROBERTA = ConfigModel(config={"model_type": "roberta"} | SIZES)


@pytest.mark.parametrize("start", ["config", "checkpoint"])
@pytest.mark.parametrize("spec", [BERT, ROBERTA, GPT, LLAMA], ids=lambda spec: spec.config["model_type"])
def test_no_word_sees_the_one_it_is_to_predict(tmp_path, monkeypatch, tokenizer, spec, start):
    seen = []

    class Watched(pretraining.Trainer):
        def train(self, *args, **options):
            seen.append({name: tensor.clone() for name, tensor in self.model.state_dict().items()})
            seen.append(logits_before_another_end(self.model))
            return super().train(*args, **options)

    monkeypatch.setattr(pretraining, "Trainer", Watched)
    fresh = load_model(spec, AutoModelForCausalLM, None, tokenizer, seed=3)
    if start == "checkpoint":
        fresh.save_pretrained(tmp_path / "start")
        spec = PretrainedModel(model=str(tmp_path / "start"))
    made = recipe(tmp_path, "causal", epochs=1.0, max_length=10)
    pretrain(spec, tokenizer, made, tmp_path / "model", tmp_path / "scratch", seed=3)
    weights_then, (first, second) = seen
    assert same(weights_then, fresh.state_dict())
    torch.testing.assert_close(first, second)


def test_an_encoder_that_learnt_the_next_word_is_an_encoder_for_its_task(tmp_path, tokenizer):
    pretrain(BERT, tokenizer, recipe(tmp_path, "causal", epochs=1.0), tmp_path / "model", tmp_path / "scratch")
    assert json.loads((tmp_path / "model/config.json").read_text())["is_decoder"] is False
    tagger = load_model(PretrainedModel(model=str(tmp_path / "model")), AutoModelForTokenClassification, ("O", "X"))
    learnt = weights(tmp_path / "model")
    assert all(torch.equal(tensor, learnt[f"bert.{name}"]) for name, tensor in tagger.bert.state_dict().items())
    first, second = logits_before_another_end(tagger)
    assert not torch.allclose(first, second, atol=1e-6)


def test_a_model_that_cannot_but_see_the_next_word_is_refused(tmp_path, tokenizer):
    sizes = {"emb_dim": 16, "n_layers": 1, "n_heads": 2, "max_position_embeddings": 16}
    spec = ConfigModel(config={"model_type": "xlm"} | sizes)
    text = message(
        ModelError, pretrain, spec, tokenizer, recipe(tmp_path, "causal"), tmp_path / "model", tmp_path / "scratch"
    )
    assert text == (
        "pretrain.objective is causal while XLMWithLMHeadModel sees the words it is to predict: "
        "set it to masked, or give another model"
    )


# ---------------------------------------------------------------------------------------------------- resuming


class PowerCut(Exception):
    pass


def run(folder, name, objective, tokenizer, cut=None):
    """Pre-train into a folder, with a power cut after that many steps; give the steps that were made."""
    steps = []

    class Trainer(pretraining.Trainer):
        def training_step(self, *args, **kwargs):
            if self.state.global_step == cut:
                raise PowerCut
            steps.append(self.state.global_step)
            return super().training_step(*args, **kwargs)

    made = recipe(folder, objective, saving=True)
    where = (folder / name, folder / f"scratch-{name}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretraining, "Trainer", Trainer)
        if cut is None:
            pretrain(BERT if objective == "masked" else GPT, tokenizer, made, *where)
        else:
            with pytest.raises(PowerCut):
                pretrain(BERT if objective == "masked" else GPT, tokenizer, made, *where)
            assert not where[0].exists()
    return steps


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tokenizer):
    """The weights of a pre-training that nothing stopped, by objective."""
    folder, made = tmp_path_factory.mktemp("whole"), {}
    for objective in ("masked", "causal"):
        assert run(folder, objective, objective, tokenizer) == list(range(12))
        made[objective] = weights(folder / objective)
    return made


# 16 texts in batches of 4, 3 epochs: 12 steps, a checkpoint at every second.
@pytest.mark.parametrize(
    ("objective", "cut", "begins"),
    [("masked", 1, 0), ("masked", 3, 2), ("masked", 7, 6), ("masked", 9, 8), ("causal", 7, 6)],
)
def test_a_killed_pretraining_resumes_to_the_same_weights(tmp_path, tokenizer, whole, objective, cut, begins):
    assert run(tmp_path, "broken", objective, tokenizer, cut) == list(range(cut))
    assert run(tmp_path, "broken", objective, tokenizer) == list(range(begins, 12))
    assert same(weights(tmp_path / "broken"), whole[objective])


# ---------------------------------------------------------------------------------------------------- refusals


def refused(tmp_path, spec, tokenizer, made):
    text = message(ModelError, pretrain, spec, tokenizer, made, tmp_path / "model", tmp_path / "scratch")
    assert not (tmp_path / "model").exists()
    return text


def test_a_tokenizer_without_a_mask_is_refused_where_one_is_needed(tmp_path):
    maskless = wordpiece(WORDS, mask_token=None)
    assert refused(tmp_path, BERT, maskless, recipe(tmp_path)) == (
        "the tokenizer has no mask token: set pretrain.objective to causal, or new_tokenizer to true"
    )
    pretrain(GPT, maskless, recipe(tmp_path, "causal", epochs=1.0), tmp_path / "model", tmp_path / "scratch")
    assert (tmp_path / "model/model.safetensors").exists()


def test_more_tokens_than_positions_are_refused(tmp_path, tokenizer):
    assert refused(tmp_path, BERT, tokenizer, recipe(tmp_path, max_length=17)) == (
        "pretrain.max_length is 17 while the model has 16 positions: give at most 16"
    )


def test_positions_that_are_kept_for_padding_are_none(tmp_path, tokenizer):
    assert refused(tmp_path, ROBERTA, tokenizer, recipe(tmp_path, max_length=12)) == (
        f"pretrain.max_length is 12 while the model has {16 - PAD - 1} positions: give at most {16 - PAD - 1}"
    )
    long = [" ".join(WORDS * 2)] * 4
    made = recipe(tmp_path, text=long, max_length=16 - PAD - 1, epochs=1.0)
    pretrain(ROBERTA, tokenizer, made, tmp_path / "model", tmp_path / "scratch")


@pytest.mark.parametrize(
    ("spec", "positions"),
    [
        (BERT, 16),
        (GPT, 16),
        (LLAMA, 16),
        (ROBERTA, 16 - PAD - 1),
        (ConfigModel(config={"model_type": "xlnet", "d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 32}), None),
    ],
    ids=lambda value: value.config["model_type"] if isinstance(value, ConfigModel) else "",
)
def test_a_model_reads_as_many_tokens_as_it_has_positions_for(tokenizer, spec, positions):
    model = load_model(spec, AutoModelForCausalLM, None, tokenizer)
    assert usable_positions(model) == positions
    if positions is not None:
        model(input_ids=torch.full((1, positions), 7))


def test_more_entries_than_embeddings_are_refused(tmp_path, tokenizer):
    small = ConfigModel(config=BERT.config | {"vocab_size": 12})
    assert refused(tmp_path, small, tokenizer, recipe(tmp_path)) == (
        "the model to pre-train has 12 embeddings where its tokenizer has 13 entries: "
        "leave vocab_size out of its config, or give the tokenizer it was made with"
    )


def test_a_model_without_the_objective_is_refused(tmp_path, tokenizer):
    made = recipe(tmp_path)
    assert refused(tmp_path, GPT, tokenizer, made) == (
        "model_type 'gpt2' is a gpt2, which has no MaskedLM in transformers: give another model"
    )


def test_a_text_that_cannot_be_read_is_refused_first(tmp_path, tokenizer):
    made = recipe(tmp_path).model_copy(update={"text": str(tmp_path / "no.txt")})
    assert message(DataError, pretrain, BERT, tokenizer, made, tmp_path / "model", tmp_path / "scratch") == (
        f"pretrain.text '{tmp_path}/no.txt' does not exist: give the path of a text file"
    )
