"""Texts rewritten by a masked language model: which words, by what, and always the same."""

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from setpoint.errors import ModelError, RecipeError
from setpoint.job import open_job
from setpoint.recipe_file import parse_recipe
from setpoint.rewriting import rewrite, with_rewritten
from setpoint.run_folder import RunFolder
from tasks.wordpiece import wordpiece
from tiny import ner_recipe, save_teacher

WORDS = ["anna", "rome", "lives", "in", "oslo", "##s", "7"]


@pytest.fixture(scope="module")
def tokenizer():
    return wordpiece(WORDS)


@pytest.fixture(scope="module")
def model(tokenizer):
    """Says the same everywhere: rome with three times the probability of oslo, and a special token before all."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        max_position_embeddings=24,
    )  # fmt: skip
    made = BertForMaskedLM(config)
    bias = torch.full((len(tokenizer),), -20.0)
    for word, value in {"rome": 3.0, "oslo": 1.0, "##s": 50.0, "7": 40.0}.items():
        bias[tokenizer.convert_tokens_to_ids(word)] = torch.tensor(value).log() if value < 9 else value
    bias[tokenizer.pad_token_id] = 60.0
    with torch.no_grad():
        made.cls.predictions.transform.LayerNorm.weight.zero_()
        made.cls.predictions.transform.LayerNorm.bias.zero_()
        made.cls.predictions.bias.copy_(bias)
    return made


def test_words_are_drawn_as_the_model_has_them_and_none_but_whole_words(model, tokenizer):
    texts = [["anna", "lives", f"in{i}"] for i in range(400)]
    found = rewrite(texts, model, tokenizer, 0.5, 2, seed=0)
    assert all(len(new) == 3 for new in found)
    drawn = Counter(word for new, old in zip(found, texts, strict=True) for word in new if word not in old)
    assert set(drawn) == {"rome", "oslo"}
    assert drawn["rome"] / drawn.total() == pytest.approx(0.75, abs=0.06)
    assert drawn.total() / 1200 == pytest.approx(0.5, abs=0.05)


def test_the_old_word_is_not_drawn_and_its_capital_is_kept(model, tokenizer):
    texts = [["Rome", "rome", f"x{i}"] for i in range(50)]
    found = rewrite(texts, model, tokenizer, 1.0, 2, seed=0)
    assert {tuple(new[:2]) for new in found} == {("Oslo", "oslo")}


def test_the_same_seed_gives_the_same_in_whatever_company(model, tokenizer):
    texts = [[word, "lives", "in", other] for word in WORDS[:3] for other in WORDS[:5]]
    found = rewrite(texts, model, tokenizer, 0.5, 2, seed=1)
    assert rewrite(texts[4:6], model, tokenizer, 0.5, 2, seed=1) == found[4:6]
    assert rewrite(texts, model, tokenizer, 0.5, 2, seed=2) != found


def test_what_is_beyond_the_models_length_stays(model, tokenizer):
    long = ["lives"] * 40
    cut = tokenizer.model_max_length
    tokenizer.model_max_length = 24
    try:
        (found,) = rewrite([long], model, tokenizer, 1.0, 2, seed=0)
    finally:
        tokenizer.model_max_length = cut
    assert "lives" not in found[:22]
    assert found[22:] == long[22:]


def job(tmp_path, model, tokenizer, **rewriting):
    model.save_pretrained(tmp_path / "mlm")
    tokenizer.save_pretrained(tmp_path / "mlm")
    recipe = ner_recipe(tmp_path, tmp_path / "teacher")
    save_teacher(tmp_path / "teacher")
    recipe["data"]["rewrite"] = {"model": str(tmp_path / "mlm"), "share": 0.5, "candidates": 2, **rewriting}
    return open_job(parse_recipe(recipe, tmp_path), RunFolder(tmp_path / "run"))


def test_copies_are_made_once_kept_and_unlabelled(tmp_path, model, tokenizer):
    with RunFolder(tmp_path / "run"):
        made = job(tmp_path, model, tokenizer, copies=2)
        found = with_rewritten(made)
        assert len(found.transfer) == 96
        sentences = made.splits.train["tokens"]
        assert [len(words) for words in found.transfer] == [len(sentences[i // 2]) for i in range(96)]
        assert found.transfer[0] != found.transfer[1]
        assert found.unlabelled == {f"transfer-{i}" for i in range(96)}
        assert found.data != made.data
        file = tmp_path / "run" / "rewritten.jsonl"
        before = file.stat().st_mtime_ns
        assert with_rewritten(made).transfer == found.transfer
        assert file.stat().st_mtime_ns == before


def test_a_model_without_a_mask_and_a_task_without_text_are_refused(tmp_path, model, tokenizer):
    with RunFolder(tmp_path / "run"):
        made = job(tmp_path, model, tokenizer)
        bare = json.loads((tmp_path / "mlm" / "tokenizer_config.json").read_text())
        (tmp_path / "mlm" / "tokenizer_config.json").write_text(json.dumps(bare | {"mask_token": None}))
        with pytest.raises(ModelError, match=r"data.rewrite.model '.*' has no mask token"):
            with_rewritten(made)
        task = type("Silent", (type(made.task),), {"text": False})(made.recipe.data)
        with pytest.raises(RecipeError, match=r"'data.rewrite' is given for the task"):
            with_rewritten(replace(made, task=task))
