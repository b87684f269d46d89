import json
import shutil

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoModelForObjectDetection,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    GPT2Config,
    PreTrainedTokenizerFast,
)

from setpoint.class_order import match_classes, order_classes
from setpoint.errors import ModelError
from setpoint.models import (
    build_student,
    check_vocabulary,
    load_model,
    load_tokenizer,
    merge_lora,
    save_model,
)
from setpoint.pretraining import train_tokenizer
from setpoint.recipe import ConfigModel, PretrainedModel, StudentRecipe
from setpoint.vision import SmallResNetConfig

LABELS = ("O", "B-PER", "I-PER")
SIZES = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 32,
}  # fmt: skip
TAGGING, WHOLE = AutoModelForTokenClassification, AutoModelForSequenceClassification
WORDS = {"input_ids": torch.tensor([[2, 7, 8, 9, 3], [2, 10, 3, 0, 0]]),
         "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])}  # fmt: skip


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["the cat sat on the mat", "the dog ate a hat"] * 3, vocab_size=100)


def config(labels=LABELS, **fields):
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    return BertConfig(**{"vocab_size": 60} | SIZES | names | fields)


def saved(folder, architecture=BertForTokenClassification, seed=0, **fields):
    torch.manual_seed(seed)
    model = architecture(config(**fields))
    model.save_pretrained(folder)
    return model.eval()


def pretrained(folder):
    return PretrainedModel(model=str(folder))


def bare(**fields):
    return ConfigModel(config={"model_type": "bert"} | SIZES | fields)


def same(first, second):
    first, second = first.state_dict(), second.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def message(call, *args, **options):
    with pytest.raises(ModelError) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------------------------------------------- checkpoints


def test_a_trained_head_keeps_its_weights_and_its_order_of_labels(tmp_path):
    model = saved(tmp_path, labels=("I-PER", "O", "B-PER"))
    loaded = load_model(pretrained(tmp_path), TAGGING, LABELS, needs_head=True)
    assert same(loaded, model)
    assert loaded.config.id2label == {0: "I-PER", 1: "O", 2: "B-PER"}


@pytest.mark.parametrize("architecture", [BertForMaskedLM, BertForSequenceClassification])
@pytest.mark.parametrize("labels", [LABELS, ("x", "y")])
def test_another_checkpoint_gives_its_body_and_a_new_head(tmp_path, architecture, labels):
    model = saved(tmp_path, architecture)
    loaded = load_model(pretrained(tmp_path), TAGGING, labels)
    assert same(loaded.bert.encoder, model.bert.encoder)
    assert loaded.config.id2label == dict(enumerate(labels))
    assert loaded.classifier.out_features == len(labels)


def test_new_weights_come_from_the_seed_alone(tmp_path):
    saved(tmp_path, BertForMaskedLM)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    first = load_model(pretrained(tmp_path), WHOLE, LABELS, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert same(first, load_model(pretrained(tmp_path), WHOLE, LABELS, seed=5))
    other = load_model(pretrained(tmp_path), WHOLE, LABELS, seed=6)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    assert not torch.equal(first.bert.pooler.dense.weight, other.bert.pooler.dense.weight)  # new: no pooler in an MLM
    assert torch.equal(first.bert.encoder.layer[0].output.dense.weight, other.bert.encoder.layer[0].output.dense.weight)


def test_half_precision_weights_are_loaded_as_float32(tmp_path):
    saved(tmp_path).half().save_pretrained(tmp_path)
    assert {p.dtype for p in load_model(pretrained(tmp_path), TAGGING, LABELS).parameters()} == {torch.float32}


def test_a_teacher_without_a_trained_head_is_refused(tmp_path):
    saved(tmp_path, BertForMaskedLM)
    text = message(load_model, pretrained(tmp_path), TAGGING, LABELS, needs_head=True)
    assert text == f"model '{tmp_path}' has no trained head for this task: say how in teacher.train"


@pytest.mark.parametrize("lost", ["classifier.weight", "bert.encoder.layer.1.output.dense.weight"])
def test_a_checkpoint_that_lacks_weights_is_refused_rather_than_filled_with_random_ones(tmp_path, lost):
    model = saved(tmp_path)
    model.save_pretrained(tmp_path, state_dict={n: v for n, v in model.state_dict().items() if n != lost})
    assert message(load_model, pretrained(tmp_path), TAGGING, LABELS) == (
        f"model '{tmp_path}' lacks weights of its architecture, such as '{lost}': give a whole checkpoint"
    )


def test_a_body_that_does_not_fit_its_config_is_refused(tmp_path):
    saved(tmp_path, BertForMaskedLM)
    fields = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(fields | {"intermediate_size": 64}))
    text = message(load_model, pretrained(tmp_path), TAGGING, LABELS)
    assert "lacks weights of its architecture, such as 'bert.encoder.layer.0.intermediate.dense.bias'" in text


def test_pickled_weights_are_refused_unread(tmp_path):
    model = saved(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    text = message(load_model, pretrained(tmp_path), TAGGING, LABELS)
    assert text == (
        f"model '{tmp_path}' cannot be loaded (Error no file named model.safetensors found in directory {tmp_path}): "
        "give a folder with safetensors weights and all else it needs, or a hub id and a connection"
    )


@pytest.mark.parametrize("load", [lambda spec: load_model(spec, TAGGING, LABELS), lambda s: load_tokenizer(s.model)])
def test_a_models_own_code_is_never_run(tmp_path, load):
    saved(tmp_path)
    marker = tmp_path / "was_run"
    (tmp_path / "own.py").write_text(f"open({str(marker)!r}, 'w')\nclass Own: pass\n")
    fields = json.loads((tmp_path / "config.json").read_text())
    own = {"AutoConfig": "own.Own", "AutoModelForTokenClassification": "own.Own", "AutoTokenizer": ["own.Own", None]}
    (tmp_path / "config.json").write_text(json.dumps(fields | {"model_type": "own", "auto_map": own}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": own, "tokenizer_class": "Own"}))
    assert "cannot be loaded" in message(load, pretrained(tmp_path))
    assert not marker.exists()


def test_what_is_not_there_is_one_sentence(tmp_path):
    assert message(load_model, PretrainedModel(model=f"{tmp_path}/no"), TAGGING, LABELS) == (
        f"model '{tmp_path}/no' does not exist: give a folder that is there, or a hub id"
    )
    assert message(load_tokenizer, f"{tmp_path}/no").startswith(f"tokenizer '{tmp_path}/no' does not exist: give")
    text = message(load_model, PretrainedModel(model="nobody/nothing"), TAGGING, LABELS)
    assert text.startswith("model 'nobody/nothing' cannot be loaded (")
    assert text.endswith(
        "): give a folder with safetensors weights and all else it needs, or a hub id and a connection"
    )
    assert "cannot be loaded" in message(load_tokenizer, tmp_path)


def test_a_folder_without_a_tokenizer_has_none(tmp_path):
    BertConfig().save_pretrained(tmp_path)  # transformers makes one of its special tokens, that reads all as unknown
    assert message(load_tokenizer, tmp_path, "teacher.model") == (
        f"teacher.model '{tmp_path}' has no tokenizer: save it there, or say where it is"
    )


def test_broken_files_are_one_sentence(tmp_path):
    saved(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-50])
    assert "cannot be loaded (" in message(load_model, pretrained(tmp_path), TAGGING, LABELS)
    (tmp_path / "config.json").write_text("{")
    assert "is not a valid JSON file" in message(load_model, pretrained(tmp_path), TAGGING, LABELS)


# ---------------------------------------------------------------------------------------------------- configurations


def test_a_config_gets_labels_vocabulary_and_padding(tokenizer):
    model = load_model(bare(), WHOLE, LABELS, tokenizer)
    assert model.config.id2label == dict(enumerate(LABELS))
    assert model.config.label2id == {name: i for i, name in enumerate(LABELS)}
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert load_model(bare(vocab_size=77), WHOLE, LABELS, tokenizer).config.vocab_size == 77


def test_a_config_gives_the_same_weights_for_the_same_seed():
    torch.manual_seed(99)
    before = torch.get_rng_state()
    first = load_model(bare(), TAGGING, LABELS, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(first, load_model(bare(), TAGGING, LABELS, seed=3))
    assert not same(first, load_model(bare(), TAGGING, LABELS, seed=4))


@pytest.mark.parametrize("name", ["", "config.json"])
def test_a_config_may_be_a_file_or_its_folder_whose_labels_do_not_count(tmp_path, name, tokenizer):
    saved(tmp_path, labels=("a", "b"))
    model = load_model(ConfigModel(config=str(tmp_path / name)), WHOLE, LABELS)
    assert model.config.id2label == dict(enumerate(LABELS))
    assert model.config.hidden_size == 16
    assert model.config.architectures is None


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"model_type": "bertt"},
         "the config has model_type 'bertt', which transformers does not know: did you mean 'bert'?"),
        ({"model_type": "9#9"},
         "the config has model_type '9#9', which transformers does not know: give one such as 'bert'"),
        ({"model_type": None}, "the config has no model_type: give one such as 'bert'"),
        ({"hidden_sise": 8},
         "the config of model_type 'bert' has no field 'hidden_sise': did you mean 'hidden_size'?"),
        ({"qqq": 8}, "the config of model_type 'bert' has no field 'qqq': see BertConfig in transformers"),
        ({"num_attention_heads": 3},
         "the config of model_type 'bert' cannot be built (The hidden size (16) is not a multiple of the number of "
         "attention heads (3)): mend it"),
        ({"hidden_size": "big"},
         "the config of model_type 'bert' cannot be built (Validation error for field 'hidden_size': TypeError: Field "
         "'hidden_size' expected int, got str (value: 'big')): mend it"),
    ],
)  # fmt: skip
def test_a_wrong_config_is_one_sentence(fields, sentence):
    assert message(load_model, bare(**fields), WHOLE, LABELS) == sentence


def test_an_architecture_without_the_task_is_refused():
    spec = ConfigModel(config={"model_type": "resnet"})
    assert message(load_model, spec, TAGGING, LABELS) == (
        "model_type 'resnet' is a resnet, which has no TokenClassification in transformers: give another model"
    )


def test_a_config_takes_the_weights_of_a_file_and_leaves_its_classes_unnamed(tmp_path):
    model = saved(tmp_path, BertForSequenceClassification, labels=("x", "y", "z"))
    spec = bare(vocab_size=60).model_copy(update={"weights": str(tmp_path / "model.safetensors")})
    for seed in (0, 1):
        loaded = load_model(spec, WHOLE, LABELS, seed=seed)
        assert same(loaded, model)
        assert list(loaded.config.id2label.values()) == ["LABEL_0", "LABEL_1", "LABEL_2"]
    named = spec.model_copy(update={"config": spec.config | {"id2label": {0: "x", 1: "y", 2: "z"}}})
    assert list(load_model(named, WHOLE, LABELS).config.id2label.values()) == ["x", "y", "z"]


def test_weights_without_the_counters_of_batch_norm_are_whole(tmp_path):
    made = AutoModelForImageClassification.from_config(SmallResNetConfig(depth=1, num_labels=3))
    weights = {name: value for name, value in made.state_dict().items() if not name.endswith("num_batches_tracked")}
    save_file(weights, tmp_path / "w.safetensors")
    config = {"model_type": "setpoint-resnet", "depth": 1}
    spec = ConfigModel(config=config, weights=str(tmp_path / "w.safetensors"))
    loaded = load_model(spec, AutoModelForImageClassification, LABELS, seed=5)
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in weights.items())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda w: w.pop("linear.bias"), "lacks 'linear.bias': give weights of this very architecture"),
        (
            lambda w: w.update(head=torch.ones(1)),
            "has, which the model lacks, 'head': give weights of this very architecture",
        ),
        (
            lambda w: w.update({"linear.bias": torch.ones(7)}),
            "has 'linear.bias' of 7 where the model has 3: mend the config or give others",
        ),
    ],
)
def test_weights_of_something_else_are_refused(tmp_path, change, sentence):
    weights = AutoModelForImageClassification.from_config(SmallResNetConfig(depth=1, num_labels=3)).state_dict()
    change(weights)
    path = tmp_path / "w.safetensors"
    save_file(weights, path)
    spec = ConfigModel(config={"model_type": "setpoint-resnet", "depth": 1}, weights=str(path))
    text = message(load_model, spec, AutoModelForImageClassification, LABELS, field="teacher.model")
    assert text == f"teacher.model.weights '{path}' {sentence}"


@pytest.mark.parametrize("content", [None, b"no safetensors"])
def test_a_file_without_weights_is_refused(tmp_path, content):
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    spec = ConfigModel(config={"model_type": "setpoint-resnet"}, weights=str(path))
    text = message(load_model, spec, AutoModelForImageClassification, LABELS, field="student.model")
    assert text.startswith(f"student.model.weights '{path}' cannot be read (")
    assert text.endswith("): give a safetensors file")


def test_a_config_file_that_is_not_there_is_refused(tmp_path):
    text = message(load_model, ConfigModel(config=f"{tmp_path}/x.json"), WHOLE, LABELS)
    assert text.startswith(f"config '{tmp_path}/x.json' cannot be read (")


# ---------------------------------------------------------------------------------------------------- tokenizers


def byte_level(folder, kind, in_sequence):
    tokenizer = Tokenizer(models.BPE())
    step = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not in_sequence)
    split = pre_tokenizers.Split(Regex(r"\s?\w+"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, step]) if in_sequence else step
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(["the cat sat on the cat"] * 4, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>").save_pretrained(folder)
    GPT2Config().save_pretrained(folder)
    fields = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(fields | {"tokenizer_class": kind}))


@pytest.mark.parametrize("in_sequence", [False, True])
@pytest.mark.parametrize("kind", ["GPT2Tokenizer", "TokenizersBackend"])
def test_byte_level_tokenizers_see_words_one_by_one_as_in_a_sentence(tmp_path, kind, in_sequence):
    byte_level(tmp_path, kind, in_sequence)
    plain = AutoTokenizer.from_pretrained(tmp_path)
    words = ["the", "cat", "sat"]
    inside = plain(" the cat sat")["input_ids"]
    assert plain(words, is_split_into_words=True)["input_ids"] != inside  # what is to be mended
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer(words, is_split_into_words=True)["input_ids"] == inside
    assert tokenizer.pad_token == "</s>"
    tokenizer.save_pretrained(tmp_path / "again")
    shutil.copy(tmp_path / "config.json", tmp_path / "again")
    assert load_tokenizer(tmp_path / "again")(words, is_split_into_words=True)["input_ids"] == inside


def test_a_tokenizer_is_loaded_as_it_was_saved(tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.is_fast
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded("the cat")["input_ids"] == tokenizer("the cat")["input_ids"]


def test_a_tokenizer_with_nothing_to_pad_with_is_refused(tmp_path):
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, "a"))).save_pretrained(tmp_path)
    assert message(load_tokenizer, tmp_path) == (
        f"tokenizer '{tmp_path}' has no token to pad with: give one with a pad_token"
    )


def test_a_model_without_padding_gets_the_tokenizers(tmp_path, tokenizer):
    saved(tmp_path, BertForMaskedLM, vocab_size=60, pad_token_id=None)
    assert load_model(pretrained(tmp_path), WHOLE, LABELS).config.pad_token_id is None
    assert load_model(pretrained(tmp_path), WHOLE, LABELS, tokenizer).config.pad_token_id == tokenizer.pad_token_id


def test_a_vocabulary_larger_than_the_embeddings_is_refused(tokenizer):
    model = load_model(bare(vocab_size=10), WHOLE, LABELS)
    assert message(check_vocabulary, model, tokenizer, "student") == (
        f"the student has 10 embeddings where its tokenizer has {len(tokenizer)} entries: "
        "leave vocab_size out of its config, or give the tokenizer it was made with"
    )
    check_vocabulary(load_model(bare(), WHOLE, LABELS, tokenizer), tokenizer, "student")
    check_vocabulary(model, None, "student")


# ---------------------------------------------------------------------------------------------------- labels


def test_classes_are_matched_by_name():
    assert match_classes({0: "a", 1: "b", 2: "c"}, ("a", "b", "c"), "teacher") is None
    assert match_classes({0: "c", 1: "a", 2: "b"}, ("a", "b", "c"), "teacher") == [1, 2, 0]
    assert match_classes({0: "LABEL_0", 1: "LABEL_1"}, ("x", "y"), "teacher") is None


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("a",), "the teacher has 1 classes where the data have 2: give a teacher with the labels a, b"),
        (("a", "c"), "the labels of teacher and data differ in 'b', 'c': "
                     "give a teacher with the labels of the data, or set data.labels"),
        (("a", "a"), "the labels of teacher and data differ in 'b': "
                     "give a teacher with the labels of the data, or set data.labels"),
    ],
)  # fmt: skip
def test_other_labels_are_refused(names, sentence):
    assert message(match_classes, dict(enumerate(names)), ("a", "b"), "teacher") == sentence


@pytest.mark.parametrize("spec", [
    bare(vocab_size=60),
    ConfigModel(config={"model_type": "distilbert", "dim": 3, "n_layers": 1, "n_heads": 1, "hidden_dim": 6,
                        "vocab_size": 60}),
    ConfigModel(config={"model_type": "xlm-roberta", "vocab_size": 60} | SIZES),  # its head comes before its body
    ConfigModel(config={"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 60,
                        "pad_token_id": 0}),
], ids=lambda spec: spec.config["model_type"])  # fmt: skip
def test_a_reordered_head_gives_reordered_logits(spec):
    """Hidden size 3 too: a linear layer of the body with as many outputs as there are labels stays as it is."""
    model = load_model(spec, WHOLE, ("I-PER", "O", "B-PER")).eval()
    before = model(**WORDS).logits
    order_classes(model, LABELS, "teacher")
    assert torch.equal(model(**WORDS).logits, before[:, [1, 2, 0]])
    assert model.config.id2label == dict(enumerate(LABELS))


def test_a_head_that_cannot_be_reordered_is_refused():
    model = load_model(bare(vocab_size=60), WHOLE, ("b", "a"))
    model.classifier = nn.Bilinear(16, 16, 2)
    assert message(order_classes, model, ("a", "b"), "teacher") == (
        "the teacher has its labels in another order, and no linear head to reorder: set data.labels to [b, a]"
    )


def test_the_head_of_boxes_is_no_head_of_four_classes():
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    spec = ConfigModel(config={"model_type": "yolos", "image_size": [8, 8], "patch_size": 8, **size})
    model = load_model(spec, AutoModelForObjectDetection, ("d", "c", "b", "a"))
    assert "no linear head to reorder: set data.labels to [d, c, b, a]" in message(
        order_classes, model, ("a", "b", "c", "d"), "teacher"
    )


# ---------------------------------------------------------------------------------------------------- students


def student(tmp_path, tokenizer=None, seed=0, **fields):
    teacher = saved(tmp_path / "teacher")
    return build_student(StudentRecipe(**fields), teacher, TAGGING, LABELS, tokenizer, seed=seed)


def test_a_pretrained_student_has_its_classes_in_the_datas_order(tmp_path):
    own = saved(tmp_path / "own", labels=("I-PER", "O", "B-PER"), seed=1)
    got = student(tmp_path, model=str(tmp_path / "own")).eval()
    assert torch.equal(got(**WORDS).logits, own(**WORDS).logits[..., [1, 2, 0]])


def test_a_student_with_other_labels_is_refused(tmp_path):
    saved(tmp_path / "own", labels=("X", "Y", "Z"))
    assert "the labels of student and data differ in" in message(student, tmp_path, model=str(tmp_path / "own"))
    assert "the student has 7 classes where the data have 3" in message(student, tmp_path, model=bare(num_labels=7))


def test_a_student_of_layers_is_the_teacher_cut(tmp_path):
    got = student(tmp_path, model={"kind": "layers", "layers": 1})
    teacher = BertForTokenClassification.from_pretrained(tmp_path / "teacher")
    assert len(got.bert.encoder.layer) == 1
    assert same(got.classifier, teacher.classifier)


def test_a_student_whose_tokenizer_is_too_large_is_refused(tmp_path, tokenizer):
    assert "embeddings where its tokenizer has" in message(student, tmp_path, tokenizer, model=bare(vocab_size=10))


RECIPE = {"dropout": 0.3, "freeze": {"embeddings": True}, "lora": {"rank": 2, "dropout": 0.05}}


def test_students_of_one_seed_are_equal_and_of_two_are_not(tmp_path, tokenizer):
    one, two, other = (student(tmp_path, tokenizer, seed, model=bare(), **RECIPE) for seed in (1, 1, 2))
    assert same(one, two)
    assert not same(one, other)
    changed = [n for n, p in one.named_parameters() if "lora_A" in n and torch.equal(p, other.state_dict()[n])]
    assert changed == []


def test_dropout_freezing_and_adapters_go_together(tmp_path, tokenizer):
    got = student(tmp_path, tokenizer, model=bare(), **RECIPE)
    dropouts = {m.p for n, m in got.named_modules() if isinstance(m, nn.Dropout) and "lora" not in n}
    assert dropouts == {0.3}
    assert {m.p for n, m in got.named_modules() if isinstance(m, nn.Dropout) and "lora" in n} == {0.05}
    learning = [n for n, p in got.named_parameters() if p.requires_grad]
    assert learning
    assert all("lora_" in n or "classifier" in n for n in learning)


# ---------------------------------------------------------------------------------------------------- saving


def test_a_saved_model_is_a_plain_folder_that_gives_the_same_logits(tmp_path, tokenizer):
    model = student(tmp_path, tokenizer, model=bare(), **RECIPE)
    with torch.no_grad():  # adapters start as nothing
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    expected = model.eval()(**WORDS).logits
    save_model(model, tokenizer, tmp_path / "out" / "student")
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == ["student"]
    assert sorted(f.name for f in (tmp_path / "out/student").iterdir()) == [
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    again = load_model(pretrained(tmp_path / "out/student"), TAGGING, LABELS, needs_head=True).eval()
    assert isinstance(again, BertForTokenClassification)
    torch.testing.assert_close(again(**WORDS).logits, expected, rtol=1e-5, atol=1e-6)
    assert again.config.hidden_dropout_prob == 0.3
    assert again.config.id2label == dict(enumerate(LABELS))
    assert load_tokenizer(tmp_path / "out/student").get_vocab() == tokenizer.get_vocab()


def test_saving_replaces_what_was_there_and_a_crash_leaves_it(tmp_path, monkeypatch):
    first, second = saved(tmp_path / "a", seed=1), saved(tmp_path / "b", seed=2)
    target = tmp_path / "model"
    save_model(first, None, target)

    def fails(folder, **options):
        (folder / "config.json").write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(second, "save_pretrained", fails)
    with pytest.raises(OSError, match="disk full"):
        save_model(second, None, target)
    assert same(load_model(pretrained(target), TAGGING, LABELS), first)
    monkeypatch.undo()
    save_model(second, None, target)  # over the leavings of the crash
    assert same(load_model(pretrained(target), TAGGING, LABELS), second)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a", "b", "model"]


def test_a_model_without_adapters_merges_to_itself(tmp_path):
    model = saved(tmp_path)
    assert merge_lora(model) is model


def test_a_language_model_has_no_labels(tokenizer):
    model = load_model(bare(), AutoModelForMaskedLM, None, tokenizer)
    assert model.get_output_embeddings().out_features == len(tokenizer)
