import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

from setpoint.errors import ModelError
from setpoint.pretraining import train_tokenizer
from setpoint.vocabulary import choose_pieces, count_pieces, prune_embeddings, prune_tokenizer
from tasks.wordpiece import PAD, wordpiece

TEXTS = [
    "the cat sat on the mat",
    "the hats of the cats",
    "a bat that sat",
    "flat maths for the bats",
    "unknown zebras",
]


def byte_level():
    """RoBERTa's kind, trained on the spot."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    names = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=330, special_tokens=names, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


KINDS = {"wordpiece": lambda: train_tokenizer(TEXTS, vocab_size=120), "byte-level": byte_level}


def pruned(tokenizer, texts, most=None):
    kept = choose_pieces(tokenizer, count_pieces(tokenizer(texts)["input_ids"], len(tokenizer)), most)
    return kept, prune_tokenizer(tokenizer, kept)


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_of_kept_pieces_is_cut_into_the_same_pieces(kind, tmp_path):
    whole = KINDS[kind]()
    kept, tokenizer = pruned(whole, TEXTS[:2])
    assert len(tokenizer) == len(kept) < len(whole)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for small in (tokenizer, again):
        for text in (*TEXTS[:2], "the mat", "cats of the cat"):
            old, new = whole(text)["input_ids"], small(text)["input_ids"]
            if set(old) <= set(kept):  # also by the ids: row i of the new is row kept[i] of the old
                assert small.convert_ids_to_tokens(new) == whole.convert_ids_to_tokens(old)
                assert [kept[i] for i in new] == old
        assert set(whole(TEXTS[0])["input_ids"]) <= set(kept)
        pad = small(["the", "the cat sat"], padding=True)["input_ids"][0][-1]
        assert kept[pad] == whole.pad_token_id
        for name in whole.special_tokens_map:
            assert getattr(small, name) == getattr(whole, name)


@pytest.mark.parametrize("kind", KINDS)
def test_other_words_can_still_be_written(kind):
    whole = KINDS[kind]()
    _, tokenizer = pruned(whole, TEXTS[:1])
    ids = tokenizer("unknown zebras")["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "unknown zebras"
    assert len(ids) > len(whole("unknown zebras")["input_ids"])


def test_the_most_frequent_stay_and_ties_go_to_the_lower_id():
    tokenizer = wordpiece(["a", "##a", "aa", "ab", "ac", "ad"])
    counts = np.zeros(11, dtype=int)
    counts[[7, 8, 9]] = [1, 2, 1]
    always = [0, 1, 2, 3, 4, 5, 6]
    assert choose_pieces(tokenizer, counts) == [*always, 7, 8, 9]
    assert choose_pieces(tokenizer, counts, 9) == [*always, 7, 8]
    assert choose_pieces(tokenizer, counts, 8) == [*always, 8]
    assert choose_pieces(tokenizer, counts, 100) == [*always, 7, 8, 9]


def test_a_merged_piece_stays_with_what_it_is_made_from():
    whole = byte_level()
    only = whole.convert_tokens_to_ids("Ġthe")
    counts = np.zeros(len(whole), dtype=int)
    counts[only] = 5
    kept = choose_pieces(whole, counts)
    assert only in kept
    assert prune_tokenizer(whole, kept).tokenize("the the") == ["Ġthe", "Ġthe"]


def test_no_room_for_what_must_stay_is_refused():
    with pytest.raises(ModelError) as caught:
        choose_pieces(wordpiece(["a", "##a", "aa"]), np.zeros(8, dtype=int), 6)
    assert str(caught.value) == (
        "student.model.vocabulary.most is 6 while special tokens and single signs are 7: give at least 7"
    )


@pytest.mark.parametrize("model", [models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0), models.BPE({"a": 0}, [])])
def test_another_kind_of_tokenizer_is_refused(model):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model))
    with pytest.raises(ModelError, match="only WordPiece and byte-level BPE can be cut"):
        choose_pieces(tokenizer, np.zeros(2, dtype=int))


def model(kind, **fields):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = AutoConfig.for_model(kind, max_position_embeddings=32, num_labels=3, **sizes | fields)
    return AutoModelForSequenceClassification.from_config(config).eval()


@pytest.mark.parametrize(("kind", "tokenizer"), [
    ("bert", "wordpiece"), ("distilbert", "wordpiece"), ("electra", "wordpiece"), ("roberta", "byte-level"),
])  # fmt: skip
def test_on_kept_pieces_the_logits_are_the_same(kind, tokenizer, tmp_path):
    whole = KINDS[tokenizer]()
    teacher = model(kind, vocab_size=len(whole), pad_token_id=whole.pad_token_id)
    kept, small = pruned(whole, TEXTS[:3])
    student = prune_embeddings(teacher, kept, small.pad_token_id)
    student.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    expected = teacher(**whole(TEXTS[:3], padding=True, return_tensors="pt")).logits
    for one in (student, again):
        got = one(**small(TEXTS[:3], padding=True, return_tensors="pt")).logits
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)
    width = teacher.get_input_embeddings().embedding_dim
    assert teacher.num_parameters() - student.num_parameters() == (len(whole) - len(kept)) * width
    assert not torch.allclose(expected, teacher(**whole(TEXTS[2:], padding=True, return_tensors="pt")).logits)


def test_a_pad_token_that_counts_positions_is_not_moved():
    tokenizer = wordpiece(["aa", "bb"])
    teacher = model("roberta", vocab_size=7, pad_token_id=PAD)
    with pytest.raises(ModelError, match="would move the pad token of a roberta"):
        prune_embeddings(teacher, [1, 2, 3, 4, 5], 3)
    assert prune_embeddings(teacher, [0, 1, 2, 3, 4, 5], 4).config.pad_token_id == tokenizer.pad_token_id
