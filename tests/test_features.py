"""The features of two whole models: which layers, which positions, how much of it counts."""

import copy
import math

import pytest
import torch
from transformers import BertConfig, BertModel, ResNetConfig, ResNetModel

from reference import features as ref
from setpoint.errors import LossError, ModelError, TargetError
from setpoint.features import FeatureObjective
from setpoint.layers import layer_pairs
from setpoint.recipe_file import parse_recipe
from setpoint.vision import SmallConvNetConfig, SmallConvNetForImageClassification
from test_recipe import VALID

MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
IDS = torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0]])


def config(width=8, layers=2, heads=2, **more):
    return BertConfig(
        vocab_size=12, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=8,
        max_position_embeddings=8, attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0,
        attn_implementation="eager", initializer_range=0.5, **more,
    )  # fmt: skip


STUDENT, TEACHER = config(4, 2), config(8, 4)


def sections(*features):
    return parse_recipe(VALID | {"objective": {"features": list(features)}}).objective.features


def objective(*features, student=STUDENT, teacher=TEACHER):
    torch.manual_seed(0)
    return FeatureObjective(sections(*features), student, teacher)


def outputs(asks, student=STUDENT, teacher=TEACHER, ids=IDS, mask=MASK):
    found = []
    for seed, one in enumerate((student, teacher)):
        torch.manual_seed(seed)
        found.append(BertModel(one).eval()(input_ids=ids, attention_mask=mask, **asks))
    return found


# ---------------------------------------------------------------------------------------------------- layers


@pytest.mark.parametrize(
    ("layers", "student", "teacher", "first", "pairs"),
    [
        ("uniform", 4, 12, 0, [(0, 0), (1, 3), (2, 6), (3, 9), (4, 12)]),
        ("uniform", 6, 12, 1, [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10), (6, 12)]),
        ("uniform", 4, 6, 1, [(1, 2), (2, 3), (3, 5), (4, 6)]),  # 1.5 and 4.5 are rounded up
        ("uniform", 3, 2, 0, [(0, 0), (1, 1), (2, 1), (3, 2)]),
        ("last", 3, 12, 0, [(3, 12)]),
        ([(1, 5), (3, 2)], 3, 12, 1, [(1, 5), (3, 2)]),
        ("learned", 3, 12, 0, []),
    ],
)
def test_which_layers_are_compared(layers, student, teacher, first, pairs):
    assert list(layer_pairs(layers, student, teacher, first)) == pairs


@pytest.mark.parametrize(
    ("pair", "first", "problem"),
    [((4, 1), 0, "layer 4 of the student, which has 0 to 3"), ((3, 13), 0, "layer 13 of the teacher, which has 0 to"),
     ((0, 1), 1, "layer 0 of the student, which has 1 to 3")],
)  # fmt: skip
def test_a_layer_that_is_not_there_is_refused(pair, first, problem):
    with pytest.raises(ModelError, match=problem):
        layer_pairs([pair], 3, 12, first)


# ---------------------------------------------------------------------------------------------------- sums


def loop(kind, s, t, example):
    length = int(MASK[example].sum())
    if kind == "pkd":
        return ref.pkd(s[example][0], t[example][0])
    if kind == "relations":
        cut = s[example][:length], t[example][:length]
        return sum(ref.relation_kl(*cut, 2, query) for query in range(length))
    return sum(getattr(ref, {"hidden": "mse"}.get(kind, kind))(s[example][i], t[example][i]) for i in range(length))


@pytest.mark.parametrize("kind", ["hidden", "cosine", "pkd", "relations"])
@pytest.mark.parametrize("layers", ["uniform", "last", [[1, 3], [1, 4]]])
def test_states_are_summed_over_layers_and_over_positions_that_are_no_padding(kind, layers):
    ours = objective({"kind": kind, "layers": layers})
    student, teacher = outputs(ours.asks)
    part = ours(student, teacher, MASK)[kind]
    pairs = {"uniform": [(0, 0), (1, 2), (2, 4)], "last": [(2, 4)]}.get(layers if isinstance(layers, str) else "")
    expected = 0.0
    for i, j in pairs or layers:
        s, t = student.hidden_states[i].double(), teacher.hidden_states[j].double()
        if kind != "relations":
            s = s @ ours.terms[kind].projection.weight.double().T
        expected += sum(loop(kind, s.tolist(), t.tolist(), example) for example in range(2))
    assert part.total.item() == pytest.approx(expected, rel=1e-4)
    assert (int(part.count), part.per) == ((2, "examples") if kind == "pkd" else (6, "positions"))


@pytest.mark.parametrize("distance", ["kl", "mse"])
@pytest.mark.parametrize("heads", [2, 4])
def test_attentions_are_summed_over_layers_and_over_queries_that_are_no_padding(distance, heads):
    teacher_config = config(8, 4, heads)
    ours = objective({"kind": "attention", "distance": distance}, teacher=teacher_config)
    student, teacher = outputs(ours.asks, teacher=teacher_config)
    part = ours(student, teacher, MASK)["attention"]
    expected = 0.0
    for i, j in [(0, 1), (1, 3)]:
        for example, length in enumerate((4, 2)):
            cut = [x.attentions[layer][example, :, :length, :length].double().tolist()
                   for x, layer in ((student, i), (teacher, j))]  # fmt: skip
            expected += sum(getattr(ref, f"attention_{distance}")(*cut, query) for query in range(length))
    assert part.total.item() == pytest.approx(expected, rel=1e-4)
    assert int(part.count) == 6


@pytest.mark.parametrize("kind", ["hidden", "cosine", "pkd", "relations", "attention"])
def test_two_examples_are_the_sum_of_each_without_its_padding(kind):
    ours = objective({"kind": kind, "layers": "learned"} if kind != "pkd" else kind)
    together = ours(*outputs(ours.asks), MASK)[kind]
    apart = [
        ours(*outputs(ours.asks, ids=IDS[i : i + 1, :n], mask=MASK[i : i + 1, :n]), MASK[i : i + 1, :n])[kind]
        for i, n in enumerate((4, 2))
    ]
    assert together.total.item() == pytest.approx(sum(part.total.item() for part in apart), rel=1e-4)
    assert int(together.count) == sum(int(part.count) for part in apart)


@pytest.mark.parametrize("kind", ["hidden", "cosine", "pkd", "relations", "attention"])
def test_without_a_mask_all_positions_count(kind):
    ours = objective(kind)
    student, teacher = outputs(ours.asks, mask=torch.ones_like(MASK))
    with_mask, without = ours(student, teacher, torch.ones_like(MASK))[kind], ours(student, teacher)[kind]
    torch.testing.assert_close(with_mask.total / with_mask.count, without.total / without.count)
    assert (without.count, without.per) == (2, "examples")


def test_the_parts_of_a_step_sum_to_its_mean_over_positions():
    ours = objective("hidden", "pkd", "relations")
    whole = ours.means(*outputs(ours.asks), MASK)
    batches = [{"attention_mask": MASK[i : i + 1], "labels": torch.zeros(1)} for i in range(2)]
    step = ours.counted(batches)
    assert {name: int(count) for name, count in step.items()} == {"positions": 6, "examples": 2}
    for name, value in whole.items():
        parts = [ours.means(*outputs(ours.asks, ids=IDS[i : i + 1], mask=MASK[i : i + 1]), MASK[i : i + 1], step)[name]
                 for i in range(2)]  # fmt: skip
        torch.testing.assert_close(sum(parts), value)


def test_a_feature_that_is_no_number_is_named():
    ours = objective("hidden", "relations")
    student, teacher = outputs(ours.asks)
    student.hidden_states = tuple(state * math.inf for state in student.hidden_states)
    with pytest.raises(LossError, match="the hidden feature is nan: lower the learning rate"):
        ours.means(student, teacher, MASK)


@pytest.mark.parametrize("kind", ["hidden", "cosine", "pkd", "relations", "attention"])
def test_a_model_is_at_no_distance_from_itself(kind):
    ours = objective(kind, student=TEACHER)
    torch.manual_seed(1)
    output = BertModel(TEACHER).eval()(input_ids=IDS, attention_mask=MASK, **ours.asks)
    assert ours(output, output, MASK)[kind].total.item() == pytest.approx(0.0, abs=1e-6)


def test_gradients_reach_the_student_and_what_is_learnt_and_never_the_teacher():
    ours = objective({"kind": "hidden", "layers": "learned"}, "attention")
    student, teacher = outputs(ours.asks)
    leaves = [*student.hidden_states, *student.attentions]
    for state in [*leaves, *teacher.hidden_states]:
        state.retain_grad()
    sum(part.total for part in ours(student, teacher, MASK).values()).backward()
    assert all(state.grad is not None and torch.isfinite(state.grad).all() for state in leaves[1:])
    assert all(state.grad is None for state in teacher.hidden_states)
    assert all(parameter.grad.abs().max() > 0 for parameter in ours.parameters())


# ---------------------------------------------------------------------------------------------------- what is learnt


def test_states_are_projected_where_widths_differ_or_where_it_is_said():
    assert [p.shape for p in objective("hidden").parameters()] == [(8, 4)]
    assert not list(objective("hidden", student=TEACHER).parameters())
    always = objective({"kind": "cosine", "projection": "always"}, student=TEACHER)
    assert [p.shape for p in always.parameters()] == [(8, 8)]
    assert not list(objective("relations").parameters())


def test_learnt_shares_mix_the_layers_of_the_teacher():
    ours = objective({"kind": "hidden", "layers": "learned"}, student=config(8, 2))
    student, teacher = outputs(ours.asks, student=config(8, 2))
    shares = torch.tensor([[0.1, 0.2, 0.3, 0.4], [1.0, 0.0, 0.0, 0.0]])
    ours.terms["hidden"].shares.data = shares.clamp(min=1e-30).log()
    expected = 0.0
    for layer in range(2):
        mixed = sum(w * t for w, t in zip(shares[layer], teacher.hidden_states[1:], strict=True))
        gaps = (student.hidden_states[layer + 1] - mixed)[MASK.bool()]
        expected += float(gaps.double().square().mean(-1).sum())
    assert float(ours(student, teacher, MASK)["hidden"].total) == pytest.approx(expected, rel=1e-5)


# ---------------------------------------------------------------------------------------------------- maps


def test_maps_of_convolutional_models_are_compared_stage_by_stage():
    small = SmallConvNetForImageClassification(SmallConvNetConfig(widths=(3, 5), num_labels=2)).eval()
    large = SmallConvNetForImageClassification(SmallConvNetConfig(widths=(4, 6), num_labels=2)).eval()
    ours = FeatureObjective(sections("attention_transfer"), small.config, large.config)
    images = torch.rand(3, 1, 8, 8)
    student, teacher = small(images, **ours.asks), large(images, **ours.asks)
    part = ours(student, teacher)["attention_transfer"]
    expected = sum(
        ref.pkd(ref.energy(student.hidden_states[stage][example].tolist()),
                ref.energy(teacher.hidden_states[stage][example].tolist()))
        for stage in (0, 1) for example in range(3)
    )  # fmt: skip
    assert part.total.item() == pytest.approx(expected, rel=1e-4)
    assert (part.count, part.per) == (3, "examples")
    last = FeatureObjective(sections({"kind": "attention_transfer", "layers": [[1, 2]]}), small.config, large.config)
    with pytest.raises(TargetError, match=r"maps of \(8, 8\) and \(4, 4\) positions: give pairs of layers"):
        last(student, teacher)


def test_maps_of_a_resnet_are_found_by_its_configuration():
    resnet = ResNetConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic", num_channels=1)
    model = ResNetModel(resnet).eval()
    ours = FeatureObjective(sections("attention_transfer"), resnet, resnet)
    output = model(torch.rand(2, 1, 16, 16), **ours.asks)
    assert float(ours(output, output)["attention_transfer"].total) == 0.0
    assert ours.terms["attention_transfer"].pairs == ((1, 1), (2, 2))


# ---------------------------------------------------------------------------------------------------- refusals


CONVNET = SmallConvNetConfig(widths=(3, 5))


@pytest.mark.parametrize(
    ("feature", "student", "teacher", "sentence"),
    [
        ("hidden", STUDENT, CONVNET, "has hidden while the teacher has no hidden states of one width: remove that"),
        ("relations", CONVNET, TEACHER, "has relations while the student has no hidden states of one width: remove"),
        ("attention", CONVNET, TEACHER, "has attention while the student has no attention heads: remove that feature"),
        ("attention_transfer", STUDENT, TEACHER, "has attention_transfer while the student has no convolutional maps"),
        ({"kind": "relations", "heads": 3}, STUDENT, TEACHER,
         "has 3 relation heads, which do not divide a width of 4, the student's: give heads, a divisor of both"),
        ("relations", config(12, 1, 3), TEACHER, "has 3 relation heads, which do not divide a width of 8, the teacher"),
        ({"kind": "hidden", "layers": [[1, 5]]}, STUDENT, TEACHER, "compares layer 5 of the teacher, which has 0 to 4"),
        ("hidden", object(), TEACHER, "needs the layers of the student, whose config names none: remove the features"),
    ],
)  # fmt: skip
def test_models_without_such_states_are_refused(feature, student, teacher, sentence):
    with pytest.raises(ModelError, match=f"objective.features {sentence}"):
        objective(feature, student=copy.deepcopy(student) if student is not None else None, teacher=teacher)


def test_attentions_that_dropout_has_torn_are_refused():
    torn = config(4)
    torn.attention_probs_dropout_prob = 0.1
    with pytest.raises(ModelError, match=r"drops 0.1 of its own: set student.dropout to 0, or that field"):
        objective("attention", student=torn)
    objective("hidden", student=torn)


def test_states_that_are_not_given_or_do_not_fit_are_refused():
    ours = objective("hidden", "attention")
    student, teacher = outputs(ours.asks)
    with pytest.raises(TargetError, match="the teacher gives no attentions: remove the feature that reads them"):
        ours(student, {"hidden_states": teacher.hidden_states}, MASK)
    with pytest.raises(TargetError, match=r"states of \(2, 4\) and \(2, 3\) and \(2, 4\) examples and positions"):
        ours(student, outputs(ours.asks, ids=IDS[:, :3], mask=MASK[:, :3])[1], MASK)
    with pytest.raises(TargetError, match=r"states of \(2, 4\) and \(2, 4\) and \(2, 3\) examples"):
        ours(student, teacher, MASK[:, :3])


def test_what_stands_at_padding_is_not_read():
    ours = objective("hidden", "cosine", "pkd", "relations", "attention")
    student, teacher = outputs(ours.asks)
    clean = {name: float(part.total) for name, part in ours(student, teacher, MASK).items()}
    gone = MASK == 0
    for output in (student, teacher):
        output.hidden_states = tuple(h.masked_fill(gone[..., None], math.nan) for h in output.hidden_states)
        output.attentions = tuple(a.masked_fill(gone[:, None, :, None], math.nan) for a in output.attentions)
    dirty = {name: float(part.total) for name, part in ours(student, teacher, MASK).items()}
    assert dirty == clean


def test_half_precision_around_it_changes_nothing():
    ours = objective("hidden", "relations")
    student, teacher = outputs(ours.asks)
    plain = ours(student, teacher, MASK)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        around = ours(student, teacher, MASK)
    assert {n: float(p.total) for n, p in around.items()} == {n: float(p.total) for n, p in plain.items()}
