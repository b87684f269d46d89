import copy

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, Trainer, TrainingArguments

from setpoint.errors import ModelError
from setpoint.recipe import FreezeRecipe, LoraRecipe, TeacherLayers
from setpoint.surgery import add_lora, cut_layers, freeze, head_modules, set_dropout, transformer_layers
from setpoint.vision import SmallConvNetConfig, SmallConvNetForImageClassification

SIZES = {
    "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 60,
    "max_position_embeddings": 32, "pad_token_id": 0,
}  # fmt: skip
KINDS = {
    "bert": SIZES,
    "distilbert": {"dim": 16, "n_layers": 4, "n_heads": 2, "hidden_dim": 32, "vocab_size": 60},
    "gpt2": {"n_embd": 16, "n_layer": 4, "n_head": 2, "vocab_size": 60, "pad_token_id": 0},
    "modernbert": SIZES | {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3},
    "xlm-roberta": SIZES,
}
WORDS = {"input_ids": torch.tensor([[2, 7, 8, 9, 3], [2, 10, 3, 0, 0]]),
         "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])}  # fmt: skip


def model(kind="bert", **fields):
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **KINDS[kind] | {"num_labels": 3} | fields)
    return AutoModelForSequenceClassification.from_config(config).eval()


def message(call, *args):
    with pytest.raises(ModelError) as caught:
        call(*args)
    return str(caught.value)


def learning(net):
    return {name for name, parameter in net.named_parameters() if parameter.requires_grad}


# ---------------------------------------------------------------------------------------------------- layers


@pytest.mark.parametrize(("kind", "name"), [
    ("bert", "bert.encoder.layer"), ("distilbert", "distilbert.transformer.layer"), ("gpt2", "transformer.h"),
    ("modernbert", "model.layers"), ("xlm-roberta", "roberta.encoder.layer"),
])  # fmt: skip
def test_the_layers_of_an_architecture_are_found(kind, name):
    found, layers = transformer_layers(model(kind))
    assert found == name
    assert len(layers) == 4


def test_the_largest_list_of_that_length_is_the_layers():
    net = model(num_hidden_layers=2)
    net.bert.aaa = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
    net.bert.zzz = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
    assert transformer_layers(net)[0] == "bert.encoder.layer"


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("layers", [2, (0, 3)])
def test_a_cut_model_is_the_teacher_with_the_other_layers_skipped(kind, layers, tmp_path):
    teacher = model(kind)
    chosen = tuple(range(layers)) if isinstance(layers, int) else layers
    student = cut_layers(teacher, TeacherLayers(layers=layers)).eval()
    assert student.config.num_hidden_layers == len(chosen)
    # The reference: the teacher itself, its other layers replaced by nothing.
    reference = copy.deepcopy(teacher)
    for index, layer in enumerate(transformer_layers(reference)[1]):
        if index not in chosen:
            layer.forward = lambda hidden, *args, **kwargs: hidden
    expected = reference(**WORDS).logits
    assert torch.equal(student(**WORDS).logits, expected)
    assert not torch.equal(teacher(**WORDS).logits, expected)
    student.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert torch.equal(again(**WORDS).logits, expected)


def test_the_teacher_stays_as_it_was():
    teacher = model().requires_grad_(False)
    before = copy.deepcopy(teacher.state_dict())
    student = cut_layers(teacher, TeacherLayers(layers=1))
    assert all(parameter.requires_grad for parameter in student.parameters())
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert teacher.config.num_hidden_layers == 4
    assert learning(teacher) == set()


def test_layers_keep_the_right_place_in_a_cache():
    student = cut_layers(model("gpt2"), TeacherLayers(layers=(1, 3)))
    assert [block.attn.layer_idx for block in student.transformer.h] == [0, 1]


@pytest.mark.parametrize("layers", [5, (0, 4), (1, 1)])
def test_layers_the_teacher_lacks_are_refused(layers):
    assert message(cut_layers, model(), TeacherLayers(layers=layers)) == (
        f"student.model.layers is {layers} while the teacher has 4 layers: "
        "give at most 4, or a list from 0 to 3, each once"
    )


def test_a_model_without_layers_is_refused():
    net = SmallConvNetForImageClassification(SmallConvNetConfig())
    assert message(cut_layers, net, TeacherLayers(layers=1)) == (
        "SmallConvNetForImageClassification has no list of layers: describe the student by a config instead"
    )


def test_layers_that_differ_by_place_are_not_put_in_a_place_they_do_not_fit():
    assert message(cut_layers, model("modernbert"), TeacherLayers(layers=(1, 2))) == (
        "student.model.layers is (1, 2), and ModernBertForSequenceClassification cannot do without the others: "
        "keep the first layer, or describe the student by a config"
    )


# ---------------------------------------------------------------------------------------------------- heads


@pytest.mark.parametrize(("kind", "heads"), [
    ("bert", ["classifier"]), ("distilbert", ["pre_classifier", "classifier"]), ("gpt2", ["score"]),
    ("modernbert", ["head", "classifier"]), ("xlm-roberta", ["classifier"]),
])  # fmt: skip
def test_the_head_of_an_architecture_is_found(kind, heads):
    assert list(head_modules(model(kind))) == heads


def test_the_head_of_a_network_without_a_named_body_is_its_last_part():
    assert list(head_modules(SmallConvNetForImageClassification(SmallConvNetConfig()))) == ["classifier"]


# ---------------------------------------------------------------------------------------------------- dropout


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_dropout_is_set_everywhere_and_survives_saving(kind, tmp_path):
    net = model(kind)
    set_dropout(net, 0.4)
    net.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    for each in (net, again):
        assert {m.p for m in each.modules() if isinstance(m, nn.Dropout)} == {0.4}
        kept = {v for m in each.modules() for n, v in vars(m).items() if "dropout" in n and isinstance(v, float)}
        assert kept <= {0.4}


def test_without_dropout_training_mode_changes_nothing():
    net = model(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    expected = net(**WORDS).logits
    assert not torch.equal(net.train()(**WORDS).logits, expected)
    set_dropout(net, 0.0)
    assert torch.equal(net.train()(**WORDS).logits, expected)


# ---------------------------------------------------------------------------------------------------- freezing


def test_the_embeddings_are_frozen():
    net = model()
    freeze(net, FreezeRecipe(embeddings=True))
    assert set(dict(net.named_parameters())) - learning(net) == {"bert.embeddings.word_embeddings.weight"}


@pytest.mark.parametrize("top", [0, 1, 3, 4])
def test_only_the_head_and_the_top_layers_learn(top):
    net = model()
    freeze(net, FreezeRecipe(keep_top=top))
    layers = {name.split(".")[3] for name in learning(net) if ".layer." in name}
    assert layers == {str(index) for index in range(4 - top, 4)}
    assert {name for name in learning(net) if ".layer." not in name} == {
        "bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias",
    }  # fmt: skip


def test_patterns_freeze_what_they_match():
    net = model()
    freeze(net, FreezeRecipe(names=("*.attention.*", "classifier.bias")))
    frozen = set(dict(net.named_parameters())) - learning(net)
    assert frozen == {n for n, _ in net.named_parameters() if ".attention." in n or n == "classifier.bias"}


def test_frozen_parts_do_not_move():
    net = model().train()
    freeze(net, FreezeRecipe(embeddings=True, keep_top=1, names=("classifier.bias",)))
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    net(**WORDS, labels=torch.tensor([0, 1])).loss.backward()
    optimizer.step()
    moved = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert moved <= learning(net)


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        (FreezeRecipe(names=("*.atention.*",)),
         "student.freeze.names has '*.atention.*', which matches no parameter: "
         "mend the pattern; a parameter is 'bert.embeddings.word_embeddings.weight'"),
        (FreezeRecipe(names=("*",)), "student.freeze leaves nothing to learn: freeze less"),
        (FreezeRecipe(keep_top=5), "student.freeze.keep_top is 5 while the student has 4 layers: give at most 4"),
    ],
)  # fmt: skip
def test_what_cannot_be_frozen_is_refused(recipe, sentence):
    assert message(freeze, model(), recipe) == sentence


def test_images_have_no_embeddings_to_freeze():
    net = SmallConvNetForImageClassification(SmallConvNetConfig())
    assert message(freeze, net, FreezeRecipe(embeddings=True)) == (
        "student.freeze.embeddings is true, and SmallConvNetForImageClassification has none: remove it"
    )


# ---------------------------------------------------------------------------------------------------- adapters


def with_random_adapters(net):
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    return net.eval()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_adapters_start_as_nothing_and_merge_into_the_weights(kind):
    net = model(kind)
    expected = net(**WORDS).logits
    adapted = add_lora(net, LoraRecipe(rank=2)).eval()
    assert torch.equal(adapted(**WORDS).logits, expected)
    learnt = with_random_adapters(adapted)(**WORDS).logits
    assert not torch.allclose(learnt, expected, atol=1e-3)
    merged = adapted.merge_and_unload()
    assert type(merged) is type(net)
    torch.testing.assert_close(merged(**WORDS).logits, learnt, rtol=1e-4, atol=1e-5)


def test_a_merged_weight_is_the_weight_and_its_low_rank_change():
    net = model()
    original = net.bert.encoder.layer[0].intermediate.dense.weight.detach().clone()
    adapted = with_random_adapters(add_lora(net, LoraRecipe(rank=2, alpha=6.0)))
    layer = adapted.base_model.model.bert.encoder.layer[0].intermediate.dense
    change = layer.lora_B["default"].weight @ layer.lora_A["default"].weight * 6.0 / 2
    merged = adapted.merge_and_unload().bert.encoder.layer[0].intermediate.dense.weight
    torch.testing.assert_close(merged, original + change.detach())


def test_adapters_and_the_head_learn_and_nothing_else():
    adapted = add_lora(model(), LoraRecipe(modules=("query", "value")))
    names = {name.removeprefix("base_model.model.") for name in learning(adapted)}
    heads = {name for name in names if name.startswith("classifier.")}
    assert len(heads) == 2
    assert {name.split(".")[6] for name in names - heads} == {"query", "value"}
    assert len(names - heads) == 4 * 2 * 2


def test_frozen_layers_get_no_adapters():
    net = model()
    freeze(net, FreezeRecipe(keep_top=1, names=("classifier.*",)))
    adapted = add_lora(net, LoraRecipe())
    names = {name.removeprefix("base_model.model.") for name in learning(adapted)}
    assert {name.split(".")[3] for name in names if ".layer." in name} == {"3"}
    assert not any("classifier" in name for name in names)


def test_modules_that_name_nothing_are_refused():
    assert message(add_lora, model(), LoraRecipe(modules=("query", "q_proj"))) == (
        "student.lora.modules is ('query', 'q_proj'), which names no linear layer that learns: "
        "name some of dense, key, query, value"
    )
    net = SmallConvNetForImageClassification(SmallConvNetConfig())
    assert message(add_lora, net, LoraRecipe()) == (
        "student.lora.modules is 'all-linear', which names no linear layer that learns: name some of another model"
    )


def test_an_adapted_model_resumes_to_the_same_weights(tmp_path):
    data = [{"input_ids": torch.randint(2, 60, (6,), generator=torch.Generator().manual_seed(i)),
             "labels": torch.tensor(i % 3)} for i in range(16)]  # fmt: skip

    def train(folder, epochs_saved, resume=None):
        args = TrainingArguments(
            str(folder), num_train_epochs=2, per_device_train_batch_size=8, save_strategy="epoch", learning_rate=1e-2,
            report_to="none", disable_tqdm=True, seed=0, use_cpu=True,
        )  # fmt: skip
        torch.manual_seed(0)
        trainer = Trainer(model=add_lora(model(), LoraRecipe(rank=2, dropout=0.1)), args=args, train_dataset=data)
        assert trainer.label_names == ["labels"]  # so that evaluation sees them
        trainer.train(resume_from_checkpoint=resume)
        return trainer.model.state_dict()

    whole = train(tmp_path, 2)
    resumed = train(tmp_path, 2, resume=str(tmp_path / "checkpoint-2"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
