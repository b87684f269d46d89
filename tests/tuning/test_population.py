import copy
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn
from torch.utils.data import SequentialSampler
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    RobertaConfig,
)

from setpoint import DistillationObjective, FrozenTeacher, Linear, Softness
from setpoint.errors import ModelError, RecipeError, RunError, SetpointWarning
from setpoint.recipe import LoraRecipe
from setpoint.surgery import add_lora
from setpoint.training import DistillationTrainer
from setpoint.tuning.population import Population
from setpoint.types import valid_rows
from setpoint.vision import SmallConvNetConfig, SmallConvNetForImageClassification
from test_training import LABELS, TINY, Learned, arguments, assert_same_weights, bert, collate, examples

WAYS = ["vmap", "one by one"]
CLOSE = {"rtol": 0, "atol": 1e-5}


class InOrder(DistillationTrainer):
    """The Trainer, the examples in the order they are given in."""

    def _get_train_sampler(self, *args, **kwargs):
        return SequentialSampler(self.train_dataset)


def objectives():
    return [
        DistillationObjective(temperature=1.0, alpha=0.9),
        DistillationObjective(temperature=Linear(8.0, 1.0), alpha=0.5),
        DistillationObjective(temperature=Softness(effective_classes=2.0), alpha=1.0),
        DistillationObjective(temperature=Learned(), alpha=0.7),
    ]


def settings(folder, **changes):
    return arguments(folder, max_steps=5, warmup_steps=2, weight_decay=0.3, max_grad_norm=0.2, **changes)


def batches(data, collate=collate, size=8, steps=5):
    chunks = [collate(data[i : i + size]) for i in range(0, len(data), size)]
    return list(itertools.islice(itertools.cycle(chunks), steps))


def separately(folder, models, losses, targets, data, collate=collate, **changes):
    """Each student by a DistillationTrainer of its own."""
    trained = []
    for model, objective in zip(models, losses, strict=True):
        run = InOrder(
            model=copy.deepcopy(model), args=settings(folder, **changes), objective=objective, targets=targets,
            train_dataset=data, data_collator=collate,
        )  # fmt: skip
        run.train()
        trained.append(run.model)
    return trained


def population(folder, models, losses, sample, mode="vmap", **changes):
    made = Population(models, losses, settings(folder, **changes), 5, sample=sample, mode=mode)
    assert made.how.startswith(mode), made.how
    return made


def train(students, data, targets, steps=slice(None)):
    return [students.step(batch, targets(batch)) for batch in data[steps]]


def assert_same(students, models):
    assert len(students.members) == len(models)
    for i, model in enumerate(models):
        other = copy.deepcopy(model)
        other.load_state_dict(students.state_dict(i))
        assert_same_weights(model, other, **CLOSE)


def sure(model):
    """A teacher with an opinion, so that temperatures differ."""
    for head in model.classifier.modules():
        if isinstance(head, nn.Linear) and head.out_features == len(LABELS):
            head.weight.data.mul_(20)
    return model


@pytest.fixture
def teacher():
    return FrozenTeacher(sure(bert(1)), LABELS)


@pytest.mark.parametrize("mode", WAYS)
@pytest.mark.parametrize("seeds", [(2, 2, 2, 2), (2, 3, 4, 5)])
@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused", "sgd"])
def test_each_student_ends_where_a_trainer_of_its_own_ends(tmp_path, teacher, mode, seeds, optim):
    data = examples()
    for row in data[8:16]:  # a batch without a row
        row["labels"] = torch.full_like(row["labels"], -100)
    models = [bert(seed) for seed in seeds]
    expected_losses, losses = objectives(), objectives()
    how = {"optim": optim, "learning_rate": 0.5 if optim == "sgd" else 1e-2}
    expected = separately(tmp_path, models, expected_losses, teacher, data, **how)
    students = population(tmp_path, models, losses, collate(data[:8]), mode, **how)
    train(students, batches(data), teacher)
    assert_same(students, expected)
    for ours, theirs in zip(losses, expected_losses, strict=True):
        assert_same_weights(ours, theirs, **CLOSE)
    assert float(losses[3].temperature.log_temperature) != 1.0
    moved = [
        (model.classifier.weight - other.classifier.weight).abs().max()
        for model, other in zip(models, expected, strict=True)
    ]
    assert min(moved) > 1e-3
    if len(set(seeds)) == 1:  # and the objectives matter
        assert not torch.allclose(
            students.state_dict(0)["classifier.weight"], students.state_dict(1)["classifier.weight"]
        )


def images(n=40):
    generator = torch.Generator().manual_seed(0)
    return [{"pixel_values": torch.randn(1, 8, 8, generator=generator), "labels": i % 5} for i in range(n)]


def collate_images(features):
    return {
        "pixel_values": torch.stack([f["pixel_values"] for f in features]),
        "labels": torch.tensor([f["labels"] for f in features]),
    }


def convnet(seed, **changes):
    torch.manual_seed(seed)
    return SmallConvNetForImageClassification(SmallConvNetConfig(widths=(4, 6), num_labels=5, **changes))


@pytest.mark.parametrize("mode", WAYS)
def test_batch_normalisation_has_its_statistics_for_each_student(tmp_path, mode):
    data, targets = images(), FrozenTeacher(sure(convnet(1)), LABELS)
    models = [convnet(seed) for seed in (2, 3, 3, 4)]
    expected = separately(tmp_path, models, objectives(), targets, data, collate_images)
    students = population(tmp_path, models, objectives(), collate_images(data[:8]), mode)
    train(students, batches(data, collate_images), targets)
    assert_same(students, expected)
    state = students.state_dict(1)
    assert state["stages.0.1.num_batches_tracked"] == 5
    assert not torch.allclose(state["stages.1.1.running_mean"], students.state_dict(2)["stages.1.1.running_mean"])
    batch = collate_images(data[:16])
    alone = torch.stack([model.eval()(batch["pixel_values"]).logits for model in expected])
    torch.testing.assert_close(students.logits(batch), alone.detach(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert"])
def test_models_of_transformers_go_through_vmap_and_learn_the_same(tmp_path, name, attention):
    sizes = {k: v for k, v in TINY.items() if not k.startswith("max_")}
    config = {
        "bert": lambda: BertConfig(**sizes),
        "roberta": lambda: RobertaConfig(**sizes, max_position_embeddings=20, pad_token_id=0),
        "distilbert": lambda: DistilBertConfig(
            vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=32, num_labels=5, dropout=0.0,
            attention_dropout=0.0, seq_classif_dropout=0.0,
        ),
    }[name]()  # fmt: skip

    def make(seed):
        torch.manual_seed(seed)
        return AutoModelForSequenceClassification.from_config(config, attn_implementation=attention)

    def whole_sentences(features):
        batch = collate(features)
        return batch | {"labels": torch.arange(len(features)) % 5}

    data, targets, models = examples(), FrozenTeacher(sure(make(1)), LABELS), [make(2), make(2), make(3)]
    expected = separately(tmp_path, models, objectives()[:3], targets, data, whole_sentences)
    students = population(tmp_path, models, objectives()[:3], whole_sentences(data[:8]))
    train(students, batches(data, whole_sentences), targets)
    assert students.how.startswith("vmap")
    assert_same(students, expected)


@pytest.mark.parametrize("mode", WAYS)
def test_what_is_frozen_and_alike_exists_once(tmp_path, teacher, mode):
    models = [bert(2), bert(3)]
    models[1].bert.embeddings.load_state_dict(models[0].bert.embeddings.state_dict())
    for model in models:
        model.bert.embeddings.requires_grad_(False)
    models[0].classifier.bias.data.fill_(1.0)
    for model in models:
        model.classifier.bias.requires_grad_(False)  # frozen, but not alike
    data = examples()
    expected = separately(tmp_path, models, objectives()[:2], teacher, data)
    students = population(tmp_path, models, objectives()[:2], collate(data[:8]), mode)
    train(students, batches(data), teacher)
    assert_same(students, expected)
    words = [student.bert.embeddings.word_embeddings.weight for student in students._stack.students]
    assert words[0] is words[1]
    assert not [name for name in students._stack.whole if "embeddings" in name]
    assert students._stack.whole["classifier.bias"].shape == (2, 5)


@pytest.mark.parametrize("mode", WAYS)
def test_a_table_lies_as_the_way_wants_it(tmp_path, mode):
    students = population(tmp_path, [bert(2)] * 3, objectives()[:3], collate(examples()[:8]), mode)
    for left in ([0, 1, 2], [0, 2]):
        students.keep(left)
        table = students._stack.whole["bert.embeddings.word_embeddings.weight"]
        assert table.shape == (len(left), 50, 16)
        assert table.transpose(0, 1).is_contiguous() == (mode == "vmap")
        assert table.is_contiguous() == (mode == "one by one")


def test_adapters_are_trained_on_one_shared_model(tmp_path):
    def make(seed):
        torch.manual_seed(0)
        model = BertForSequenceClassification(BertConfig(**TINY))
        torch.manual_seed(seed)
        return add_lora(model, LoraRecipe(rank=2))

    def whole_sentences(features):
        return collate(features) | {"labels": torch.arange(len(features)) % 5}

    data, models = examples(), [make(2), make(3)]
    targets = FrozenTeacher(BertForSequenceClassification(BertConfig(**TINY)), LABELS)
    expected = separately(tmp_path, models, objectives()[:2], targets, data, whole_sentences)
    students = population(tmp_path, models, objectives()[:2], whole_sentences(data[:8]))
    train(students, batches(data, whole_sentences), targets)
    assert_same(students, expected)
    assert sum(w.numel() for w in students._stack.whole.values()) < sum(w.numel() for w in models[0].parameters())


@pytest.mark.parametrize("mode", WAYS)
def test_a_student_with_a_huge_gradient_leaves_the_others_alone(tmp_path, teacher, mode):
    data, models = examples(), [bert(2), bert(2), bert(3)]
    models[1].classifier.weight.data.mul_(1e4)
    losses = [DistillationObjective(temperature=2.0) for _ in models]
    expected = separately(tmp_path, models, losses, teacher, data, optim="sgd")
    students = population(tmp_path, models, losses, collate(data[:8]), mode, optim="sgd")
    train(students, batches(data), teacher)
    for i in (0, 2):
        other = copy.deepcopy(expected[i])
        other.load_state_dict(students.state_dict(i))
        assert_same_weights(expected[i], other, **CLOSE)


@pytest.mark.parametrize("mode", WAYS)
def test_those_kept_go_on_as_if_the_others_had_never_been(tmp_path, teacher, mode):
    data, models = batches(examples()), [bert(seed) for seed in (2, 3, 4, 5)]
    whole = population(tmp_path, models, objectives(), data[0], mode)
    train(whole, data, teacher)
    halved = population(tmp_path, models, objectives(), data[0], mode)
    train(halved, data, teacher, slice(0, 2))
    halved.keep([3, 1])
    assert halved.members == [3, 1]
    train(halved, data, teacher, slice(2, 4))
    halved.keep([0])
    assert halved.members == [3]
    assert halved.how == "one by one " + ("(a single student)" if mode == "vmap" else "(as asked for)")
    losses = train(halved, data, teacher, slice(4, 5))
    assert losses[0].shape == (1,)
    assert halved.logits(data[0]).shape == (1, int(valid_rows(data[0]).sum()), 5)
    for name, value in whole.state_dict(3).items():
        torch.testing.assert_close(halved.state_dict(0)[name], value, **CLOSE)
    learnt = [s.objectives[i].temperature.log_temperature for s, i in ((whole, 3), (halved, 0))]
    torch.testing.assert_close(*learnt, **CLOSE)
    assert len([p for group in halved.optimizer.param_groups for p in group["params"]]) == len(halved.optimizer.state)


@pytest.mark.parametrize("mode", WAYS)
@pytest.mark.parametrize("optim", ["adamw_torch", "sgd"])
def test_a_copy_goes_on_as_the_one_it_was_copied_from(tmp_path, teacher, mode, optim):
    data, models = batches(examples()), [bert(seed) for seed in (2, 3, 4)]

    def losses():
        return [DistillationObjective(temperature=t) for t in (1.0, 2.0, 4.0)]

    given = {"optim": optim, "lr_scheduler_type": "constant"}
    plain, copied = (population(tmp_path, models, losses(), data[0], mode, **given) for _ in range(2))
    for students in (plain, copied):
        train(students, data, teacher, slice(0, 3))
    copied.lost[0] = "no number"
    copied.copy(2, 0)
    assert not copied.lost
    for name, weight in copied.state_dict(0).items():
        assert torch.equal(weight, plain.state_dict(2)[name]), name
        assert torch.equal(copied.state_dict(1)[name], plain.state_dict(1)[name]), name
    copied.objectives[0] = DistillationObjective(temperature=4.0)
    for students in (plain, copied):  # its optimiser remembers too, and moves none but it
        train(students, data, teacher, slice(3, 5))
    for name, weight in plain.state_dict(2).items():
        torch.testing.assert_close(copied.state_dict(0)[name], weight, **CLOSE)
        torch.testing.assert_close(copied.state_dict(2)[name], weight, **CLOSE)
        torch.testing.assert_close(copied.state_dict(1)[name], plain.state_dict(1)[name], **CLOSE)
    assert (copied.state_dict(0)["classifier.weight"] - plain.state_dict(0)["classifier.weight"]).abs().max() > 1e-3


def test_a_wrong_place_changes_nothing(tmp_path, teacher):
    students = population(tmp_path, [bert(2)] * 2, objectives()[:2], collate(examples()[:8]))
    with pytest.raises(IndexError):
        students.keep([0, 2])
    assert students.members == [0, 1]
    assert len(students._stack.students) == 2


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused"])
@pytest.mark.parametrize("mode", WAYS)
def test_a_resumed_population_is_bit_equal_to_an_unbroken_one(tmp_path, teacher, mode, optim):
    data, models = batches(examples()), [bert(2, hidden_dropout_prob=0.3)] * 4

    def make():
        torch.manual_seed(7)
        return population(tmp_path, models, objectives(), data[0], mode, optim=optim)

    unbroken = make()
    train(unbroken, data, teacher, slice(0, 2))
    unbroken.keep([0, 2, 3])
    train(unbroken, data, teacher, slice(2, 3))
    unbroken.save(tmp_path / "state")
    unbroken.save(tmp_path / "state")  # over an older one
    train(unbroken, data, teacher, slice(3, 5))
    resumed = make()
    resumed.load(tmp_path / "state")
    assert (resumed.steps, resumed.members) == (3, [0, 2, 3])
    train(resumed, data, teacher, slice(3, 5))
    for i in range(3):
        for name, value in unbroken.state_dict(i).items():
            assert torch.equal(value, resumed.state_dict(i)[name]), name
        assert_same_weights(unbroken.objectives[i], resumed.objectives[i])
    assert len(list((tmp_path / "state").iterdir())) == 2


KILLED = """
    import sys
    sys.path.insert(0, {tests!r})
    import test_training as t
    from setpoint import DistillationObjective
    from setpoint.tuning.population import Population
    batch = t.collate(t.examples()[:8])
    objectives = [DistillationObjective(alpha=0.0) for _ in range(2)]
    students = Population([t.bert(2)] * 2, objectives, t.arguments({folder!r}), 10**6, sample=batch, mode="one by one")
    print("ready", flush=True)
    while True:
        students.step(batch)
        students.save({folder!r})
"""


@pytest.mark.slow
def test_a_kill_while_saving_leaves_a_whole_state(tmp_path, request):
    script = tmp_path / "train.py"
    script.write_text(
        textwrap.dedent(KILLED).format(tests=str(request.path.parents[1]), folder=str(tmp_path / "state"))
    )
    students = Population(
        [bert(2)] * 2, [DistillationObjective(alpha=0.0) for _ in range(2)], arguments(tmp_path), 10**6,
        sample=collate(examples()[:8]), mode="one by one",
    )  # fmt: skip
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    while True:  # killed at any moment, a few saves on
        try:
            if json.loads((tmp_path / "state/population.json").read_text())["steps"] > 20:
                break
        except FileNotFoundError:
            assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    students.load(tmp_path / "state")
    assert students.steps > 20
    losses = students.step(collate(examples()[:8]))
    # Of one step both; the last digit is that of where in memory they lie.
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-4)
    assert losses[0] < 1.6


def test_what_is_no_population_is_not_loaded(tmp_path, teacher):
    batch = collate(examples()[:8])
    students = population(tmp_path, [bert(2)] * 2, objectives()[:2], batch)
    with pytest.raises(RunError, match="holds no population"):
        students.load(tmp_path)
    students.save(tmp_path / "state")
    other = population(tmp_path, [bert(2, intermediate_size=24)] * 2, objectives()[:2], batch)
    with pytest.raises(RunError, match="other students"):
        other.load(tmp_path / "state")
    (tmp_path / "state" / "population.json").write_text("{")
    with pytest.raises(RunError, match="holds no population"):
        students.load(tmp_path / "state")


class Decides(nn.Module):
    """Looks at its own weights before it goes on."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(x) if self.head.bias.sum() > -100 else self.head(-x)


class Fickle(nn.Module):
    """Goes through vmap unless the batch is a small one."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(x) if len(x) > 2 or self.head.bias.sum() > -100 else x


def rows(n):
    torch.manual_seed(n)
    return {"x": torch.randn(n, 4), "labels": torch.arange(n) % 3}


def test_what_vmap_cannot_do_is_done_one_by_one_with_the_reason(tmp_path):
    students = Population([Decides()] * 2, objectives()[:2], settings(tmp_path), 5, sample=rows(8))
    assert students.how.startswith(
        "one by one (vmap: RuntimeError: vmap: It looks like you're attempting to use a Tensor"
    )
    before = students.state_dict(0)["head.weight"]
    students.step(rows(8), torch.randn(8, 3))
    students.step(rows(8), torch.randn(8, 3))  # the warm-up begins at a rate of 0
    assert not torch.equal(before, students.state_dict(0)["head.weight"])


@pytest.mark.parametrize("at", [0, 2])
def test_a_batch_vmap_cannot_do_turns_the_population_one_by_one(tmp_path, at):
    torch.manual_seed(0)
    model = Fickle()
    data = [rows(2 if i == at else 8) for i in range(5)]
    teacher = [torch.randn(len(batch["labels"]), 3) for batch in data]
    students = population(tmp_path, [model] * 3, objectives()[:3], rows(8))
    other = population(tmp_path, [model] * 3, objectives()[:3], rows(8), "one by one")
    for i, batch in enumerate(data):
        if i == at:
            with pytest.warns(SetpointWarning, match=f"one by one \\(from step {at} on, vmap: RuntimeError"):
                ours = students.step(batch, teacher[i])
        else:
            ours = students.step(batch, teacher[i])
        torch.testing.assert_close(ours, other.step(batch, teacher[i]), **CLOSE)
    assert_same(students, other._stack.students)


class Impure(nn.Module):
    """Under functional_call it uses weights that are not given to it."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.hidden = [self.head]
        self.own = self.head.weight.detach().clone()

    def forward(self, x):
        return self.head(x) + x @ self.own.T


def test_a_model_whose_logits_differ_under_vmap_goes_one_by_one(tmp_path):
    models = [Impure(), Impure()]
    students = Population(models, objectives()[:2], settings(tmp_path), 5, sample=rows(8))
    assert students.how.startswith("one by one (under vmap the logits differ by ")


def test_the_quicker_way_is_taken(tmp_path, monkeypatch):
    batch = collate(examples()[:8])
    for times, way in (((0.002, 0.001), "one by one (vmap took 2 ms"), ((0.001, 0.002), "vmap (1 ms")):
        monkeypatch.setattr("setpoint.tuning.trial._race", lambda *args, times=times: times)
        made = Population([bert(2)] * 2, objectives()[:2], settings(tmp_path), 5, sample=batch)
        assert made.how.startswith(way)


def test_trying_out_changes_nothing(tmp_path):
    model, batch = convnet(2, dropout=0.5), collate_images(images(8))
    before = copy.deepcopy(model)
    random = torch.get_rng_state()
    students = Population([model] * 2, objectives()[:2], settings(tmp_path), 5, sample=batch, mode="vmap")
    assert torch.equal(random, torch.get_rng_state())
    assert_same_weights(model, before)
    assert_same_weights(students._stack.students[1], before)
    assert all(weight.grad is None for weight in students._stack.whole.values())
    assert students.optimizer.state == {}


@pytest.mark.parametrize("mode", WAYS)
def test_dropout_is_another_for_each_student(tmp_path, teacher, mode):
    batch = collate(examples()[:8])
    model = bert(2, hidden_dropout_prob=0.5)
    students = population(
        tmp_path, [model] * 3, [DistillationObjective(temperature=2.0) for _ in range(3)], batch, mode
    )
    losses = students.step(batch, teacher(batch))
    assert len(set(losses.tolist())) == 3
    evaluated = students.logits(batch)  # the first step's rate is 0
    assert torch.allclose(evaluated[0], evaluated[1], atol=1e-6)


@pytest.mark.parametrize("mode", WAYS)
def test_a_student_without_a_finite_loss_is_given_up_and_the_others_go_on(tmp_path, teacher, mode):
    data, models = batches(examples()), [bert(2), bert(3), bert(4)]
    expected = population(tmp_path, [models[0], models[2]], [objectives()[0], objectives()[1]], data[0], mode)
    models[1].classifier.bias.data[0] = torch.inf
    losses = [objectives()[0], DistillationObjective(), objectives()[1]]
    students = Population(models, losses, settings(tmp_path), 5, sample=data[0], mode="one by one")
    students.how = mode
    seen = train(students, data, teacher)
    assert all(torch.isnan(one[1]) and torch.isfinite(one[[0, 2]]).all() for one in seen)
    assert set(students.lost) == {1}
    assert "student 1 at step 0: the " in str(students.lost[1])
    train(expected, data, teacher)
    for ours, theirs in ((0, 0), (2, 1)):
        for name, value in expected.state_dict(theirs).items():
            torch.testing.assert_close(students.state_dict(ours)[name], value, **CLOSE)
    students.save(tmp_path / "state")
    students.load(tmp_path / "state")
    assert set(students.lost) == {1}


@pytest.mark.parametrize("mode", WAYS)
def test_a_weight_that_no_student_uses_does_not_decay(tmp_path, mode):
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.spare = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(x)

    model = Spare()
    students = population(tmp_path, [model] * 2, objectives()[:2], rows(8), mode)
    for _ in range(3):
        students.step(rows(8), torch.randn(8, 3))
    assert torch.equal(students.state_dict(1)["spare.weight"], model.spare.weight)
    assert not torch.equal(students.state_dict(1)["head.weight"], model.head.weight)


@pytest.mark.parametrize("mode", WAYS)
def test_bfloat16_is_the_trainers(tmp_path, teacher, mode):
    data, models = examples(), [bert(2), bert(3)]
    expected = separately(tmp_path, models, objectives()[:2], teacher, data, bf16=True)
    students = population(tmp_path, models, objectives()[:2], collate(data[:8]), mode, bf16=True)
    train(students, batches(data), teacher)
    for i, model in enumerate(expected):
        assert (students.state_dict(i)["classifier.weight"] - model.classifier.weight).abs().max() < 5e-3


def test_students_of_labels_alone_need_no_teacher(tmp_path):
    batch = collate(examples()[:8])
    students = population(tmp_path, [bert(2)] * 2, [DistillationObjective(alpha=0.0) for _ in range(2)], batch)
    assert torch.isfinite(students.step(batch)).all()


def test_what_cannot_be_a_population_is_refused(tmp_path):
    batch = collate(examples()[:8])
    with pytest.raises(ModelError, match="2 models for 3 objectives"):
        Population([bert(2)] * 2, objectives()[:3], settings(tmp_path), 5, sample=batch)
    with pytest.raises(ModelError, match="not of one architecture"):
        Population([bert(2), bert(2, intermediate_size=24)], objectives()[:2], settings(tmp_path), 5, sample=batch)
    plateau = {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps"}
    for changes in ({"optim": "adafactor"}, plateau):
        with pytest.raises(RecipeError, match=f"cannot have the .* '{next(iter(changes.values()))}'"):
            Population([bert(2)], objectives()[:1], settings(tmp_path, **changes), 5, sample=batch)
