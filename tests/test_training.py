import copy
import json
import subprocess
import sys
import textwrap

import pytest
import torch
from datasets import Dataset
from torch import nn
from transformers import BertConfig, BertForTokenClassification, Trainer, TrainerCallback, TrainingArguments

from setpoint import (
    Constant,
    DistillationObjective,
    FrozenTeacher,
    InstanceTemperature,
    MetaTemperature,
    TemperaturePolicy,
    Temperatures,
)
from setpoint.checkpoints import MarkComplete, latest_checkpoint
from setpoint.training import DistillationTrainer

LABELS = [f"c{i}" for i in range(5)]
TINY = {
    "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 16, "num_labels": 5, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


def bert(seed, **changes):
    torch.manual_seed(seed)
    return BertForTokenClassification(BertConfig(**TINY | changes))


def examples(n=32):
    """Ragged sentences, a label on some of the positions."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for i in range(n):
        length = int(torch.randint(3, 12, (), generator=generator))
        ids = torch.randint(1, 50, (length,), generator=generator)
        labels = torch.randint(0, 5, (length,), generator=generator)
        labels[torch.rand(length, generator=generator) < 0.4] = -100
        labels[0] = i % 5  # at least one row each
        rows.append({"id": f"x{i}", "input_ids": ids, "labels": labels})
    return rows


def collate(features):
    width = max(len(f["input_ids"]) for f in features)

    def pad(values, fill):
        return torch.stack([nn.functional.pad(v, (0, width - len(v)), value=fill) for v in values])

    return {
        "input_ids": pad([f["input_ids"] for f in features], 0),
        "attention_mask": pad([torch.ones_like(f["input_ids"]) for f in features], 0),
        "labels": pad([f["labels"] for f in features], -100),
        "example_id": [f["id"] for f in features],
    }


def arguments(folder, **changes):
    settings = {
        "per_device_train_batch_size": 8, "num_train_epochs": 2, "learning_rate": 1e-2, "logging_steps": 1,
        "report_to": "none", "disable_tqdm": True, "remove_unused_columns": False, "use_cpu": True,
        "save_strategy": "no", "seed": 3,
    }  # fmt: skip
    return TrainingArguments(str(folder), **settings | changes)


def trainer(
    folder, model=None, objective=None, targets="live", callbacks=(), data=None, eval_dataset=None, unlabelled=(),
    features=None, **changes,
):  # fmt: skip
    if targets == "live":
        targets = FrozenTeacher(bert(1), LABELS)
    return DistillationTrainer(
        model=model or bert(2),
        args=arguments(folder, **changes),
        unlabelled=unlabelled,
        features=features,
        objective=objective or DistillationObjective(temperature=3.0, alpha=0.7),
        targets=targets,
        train_dataset=data or examples(),
        eval_dataset=eval_dataset,
        data_collator=collate,
        callbacks=list(callbacks),
    )


def losses(run):
    return [entry["loss"] for entry in run.state.log_history if "loss" in entry]


def assert_same_weights(a, b, **tolerance):
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        torch.testing.assert_close(
            x, y, msg=lambda text, name=name: f"{name}: {text}", **tolerance or {"rtol": 0, "atol": 0}
        )


def test_hard_labels_alone_are_ordinary_fine_tuning(tmp_path):
    ours = trainer(tmp_path / "a", objective=DistillationObjective(alpha=0.0), targets=None)
    plain = Trainer(
        model=bert(2), args=arguments(tmp_path / "b"), train_dataset=examples(),
        data_collator=lambda f: {k: v for k, v in collate(f).items() if k != "example_id"},
    )  # fmt: skip
    ours.train()
    plain.train()
    assert losses(ours) == pytest.approx(losses(plain), abs=1e-5)
    assert_same_weights(ours.model, plain.model, rtol=1e-4, atol=1e-5)


def test_the_logged_loss_is_the_formula_on_the_rows(tmp_path):
    run = trainer(tmp_path, per_device_train_batch_size=32, max_steps=1)
    student, teacher = copy.deepcopy(run.model), run.targets.model
    run.train()
    batch = collate(examples())
    rows = batch["labels"] != -100
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    z, v = student(**inputs).logits[rows].double(), teacher(**inputs).logits[rows].double()
    p, q = torch.softmax(v / 3, -1), torch.softmax(z / 3, -1)
    divergence = 9 * (p * (p / q).log()).sum(-1).mean()
    hard = -torch.softmax(z, -1).log()[range(len(z)), batch["labels"][rows]].mean()
    log = run.state.log_history[0]
    assert log["divergence"] == pytest.approx(float(divergence), abs=1e-5)
    assert log["hard"] == pytest.approx(float(hard), abs=1e-5)
    assert log["loss"] == pytest.approx(0.7 * float(divergence) + 0.3 * float(hard), abs=1e-5)


def test_accumulated_micro_batches_equal_one_batch(tmp_path):
    whole = trainer(tmp_path / "a", per_device_train_batch_size=32, lr_scheduler_type="constant", num_train_epochs=3)
    parts = trainer(
        tmp_path / "b", per_device_train_batch_size=8, gradient_accumulation_steps=4, lr_scheduler_type="constant",
        num_train_epochs=3,
    )  # fmt: skip
    whole.train()
    parts.train()
    assert losses(parts) == pytest.approx(losses(whole), abs=1e-6)
    whole_terms = [log["divergence"] for log in whole.state.log_history if "divergence" in log]
    parts_terms = [log["divergence"] for log in parts.state.log_history if "divergence" in log]
    assert parts_terms == pytest.approx(whole_terms, abs=1e-6)
    assert_same_weights(whole.model, parts.model, rtol=0, atol=2e-5)


class Learned(TemperaturePolicy):
    """A temperature that is one parameter, moved by the loss."""

    def __init__(self):
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(1.0))

    def forward(self, teacher_logits, student_logits, labels=None, progress=0.0):
        temperature = self.log_temperature.exp()
        return Temperatures(temperature, temperature, temperature.detach() ** 2)


def test_a_learned_temperature_is_trained_without_decay(tmp_path):
    policy = Learned()
    run = trainer(tmp_path, objective=DistillationObjective(temperature=policy), weight_decay=0.5)
    run.train()
    groups = [g for g in run.optimizer.param_groups if any(p is policy.log_temperature for p in g["params"])]
    assert [g["weight_decay"] for g in groups] == [0.0]
    assert float(policy.log_temperature) != 1.0


@pytest.mark.parametrize(
    "temperature",
    [lambda: 3.0, Learned, lambda: InstanceTemperature(warmup=0.0, every=2), lambda: MetaTemperature(every=2)],
    ids=["constant", "learned", "by an agent", "by held-out labels"],
)  # fmt: skip
def test_a_resumed_training_is_bit_equal_to_an_unbroken_one(tmp_path, temperature):
    def make(folder):
        objective = DistillationObjective(temperature=temperature())
        return trainer(
            folder, model=bert(2, hidden_dropout_prob=0.3), objective=objective, callbacks=[MarkComplete()],
            save_strategy="steps", save_steps=3,
        )  # fmt: skip

    unbroken = make(tmp_path / "a")
    unbroken.train()

    class PowerCut(Exception):
        pass

    broken = make(tmp_path / "b")
    step = broken.training_step

    def cut(*args, **kwargs):
        if broken.state.global_step == 5:
            raise PowerCut
        return step(*args, **kwargs)

    broken.training_step = cut
    with pytest.raises(PowerCut):
        broken.train()
    resumed = make(tmp_path / "b")
    checkpoint = latest_checkpoint(tmp_path / "b")
    assert str(checkpoint).endswith("checkpoint-3")
    resumed.train(resume_from_checkpoint=checkpoint)
    assert_same_weights(unbroken.model, resumed.model)
    assert_same_weights(unbroken.objective, resumed.objective)


ONE_STEP = {"optim": "sgd", "learning_rate": 1.0, "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "max_steps": 1}
"""The weights move by the gradient itself."""


def test_the_gradient_of_accumulated_micro_batches_is_that_of_one_batch(tmp_path):
    whole = trainer(tmp_path / "a", per_device_train_batch_size=32, **ONE_STEP)
    parts = trainer(tmp_path / "b", per_device_train_batch_size=8, gradient_accumulation_steps=4, **ONE_STEP)
    whole.train()
    parts.train()
    assert losses(parts) == pytest.approx(losses(whole), abs=1e-6)
    assert_same_weights(whole.model, parts.model, rtol=0, atol=1e-6)
    assert not torch.allclose(whole.model.classifier.weight, bert(2).classifier.weight, atol=1e-3)


TWO_PROCESSES = """
    import json, sys
    sys.path.insert(0, {tests!r})
    from test_training import ONE_STEP, losses, trainer
    run = trainer({folder!r}, per_device_train_batch_size=16, ddp_backend="gloo", **ONE_STEP)
    run.train()
    if run.args.process_index == 0:
        run.save_model({folder!r})
        with open({folder!r} + "/losses.json", "w") as file:
            json.dump(losses(run), file)
    import os, torch
    torch.distributed.barrier()
    os._exit(0)  # gloo's threads, or torch's, now and then abort a process at its very end, its work done
"""


@pytest.mark.slow
def test_the_gradient_of_two_processes_is_that_of_one(tmp_path, request):
    script = tmp_path / "train.py"
    folder = str(tmp_path / "two")
    script.write_text(textwrap.dedent(TWO_PROCESSES).format(tests=str(request.path.parent), folder=folder))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    one = trainer(tmp_path / "one", per_device_train_batch_size=32, **ONE_STEP)
    one.train()
    assert json.loads((tmp_path / "two/losses.json").read_text()) == pytest.approx(losses(one), abs=1e-6)
    assert_same_weights(one.model, BertForTokenClassification.from_pretrained(folder), rtol=0, atol=1e-6)


def test_progress_reaches_the_policy(tmp_path):
    seen = []

    class Recording(Constant):
        def forward(self, teacher_logits, student_logits, labels=None, progress=0.0):
            if self.training:
                seen.append(progress)
            return super().forward(teacher_logits, student_logits, labels, progress)

    trainer(tmp_path, objective=DistillationObjective(temperature=Recording(2.0)), max_steps=4).train()
    assert seen == [0.0, 0.25, 0.5, 0.75]


def test_terms_and_loss_are_averaged_alike_where_the_last_step_of_an_epoch_is_shorter(tmp_path):
    """12 sentences in batches of 4, two batches a step: each epoch has a step of 8 sentences and one of 4."""
    run = trainer(
        tmp_path, data=examples(12), per_device_train_batch_size=4, gradient_accumulation_steps=2, logging_steps=4,
        num_train_epochs=4,
    )  # fmt: skip
    run.train()
    logs = [log for log in run.state.log_history if "divergence" in log]
    assert len(logs) == 2
    for log in logs:
        assert 0.7 * log["divergence"] + 0.3 * log["hard"] == pytest.approx(log["loss"], abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_the_evaluation_loss_is_the_mean_over_rows_whatever_the_batches(tmp_path, batch_size):
    run = trainer(tmp_path, per_device_eval_batch_size=batch_size)
    batch = collate(examples())
    with torch.no_grad():
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        z, v = run.model.eval()(**inputs).logits, run.targets.model(**inputs).logits
        expected = run.objective(student_logits=z, teacher_logits=v, labels=batch["labels"]).total
    assert run.evaluate(examples())["eval_loss"] == pytest.approx(float(expected), abs=1e-5)


class Plain(nn.Module):
    """A model that knows of no labels and gives a tuple."""

    def __init__(self):
        super().__init__()
        self.bert = bert(4)

    def forward(self, input_ids, attention_mask):
        return self.bert(input_ids=input_ids, attention_mask=attention_mask).logits, "state"


def test_a_model_of_any_make_is_trained_and_evaluated(tmp_path):
    run = trainer(tmp_path, model=Plain(), num_train_epochs=4)
    before = run.evaluate(examples())["eval_loss"]
    run.train()
    assert run.evaluate(examples())["eval_loss"] < before


def test_labels_have_one_name_whatever_the_model_calls_its_own(tmp_path):
    class Starts(Plain):
        def forward(self, input_ids, attention_mask=None, start_positions=None, end_positions=None):
            return super().forward(input_ids, attention_mask)

    Starts.__name__ = "PlainForQuestionAnswering"  # by which transformers expects other columns
    assert trainer(tmp_path, model=Starts()).evaluate(examples())["eval_loss"] > 0


def test_the_ids_of_a_data_set_are_not_thrown_away_as_unused_columns(tmp_path):
    columns = {key: [row[key] if key == "id" else row[key].tolist() for row in examples()] for key in examples()[0]}
    data = Dataset.from_dict(columns | {"unused": list(range(32))}).with_format("torch")
    run = trainer(tmp_path, data=data, remove_unused_columns=True, max_steps=1)
    plain = trainer(tmp_path, max_steps=1)
    run.train()
    plain.train()
    assert losses(run) == losses(plain)


def test_several_devices_in_one_process_have_one_denominator(tmp_path):
    """With DataParallel the Trainer hands over the number of rows once for each device."""
    run = trainer(tmp_path)
    batch = collate(examples())
    count = (batch["labels"] != -100).sum()
    expected = run.compute_loss(run.model.train(), batch, num_items_in_batch=count)
    run.args._n_gpu = 2
    assert float(run.compute_loss(run.model, batch, num_items_in_batch=count.expand(2, 1)).detach()) == pytest.approx(
        float(expected.detach())
    )
    run.args.average_tokens_across_devices = False
    halved = (count // 2).expand(2, 1)
    result = float(run.compute_loss(run.model, batch, num_items_in_batch=halved).detach())
    assert result == pytest.approx(float(expected.detach()) * float(count) / float(count // 2 * 2))


def test_the_best_checkpoint_brings_its_temperature_back(tmp_path):
    seen = {}

    class Remember(TrainerCallback):
        def on_evaluate(self, args, state, control, **kwargs):
            seen[state.global_step] = float(policy.log_temperature.detach())

    policy = Learned()
    run = trainer(
        tmp_path, objective=DistillationObjective(temperature=policy), callbacks=[Remember()], save_strategy="epoch",
        eval_strategy="epoch", load_best_model_at_end=True, metric_for_best_model="loss", greater_is_better=True,
        num_train_epochs=3, eval_dataset=examples(),
    )  # fmt: skip
    run.train()
    best = int(run.state.best_model_checkpoint.rpartition("-")[2])
    assert best < max(seen)  # the loss falls, and the largest is asked for
    assert float(policy.log_temperature.detach()) == seen[best]


def test_a_learned_temperature_has_its_gradient_clipped(tmp_path):
    moved = {}
    for most in (1e-6, 0.0):
        policy = Learned()
        run = trainer(
            tmp_path, objective=DistillationObjective(temperature=policy), max_grad_norm=most, max_steps=1, optim="sgd"
        )
        run.train()
        moved[most] = abs(float(policy.log_temperature.detach()) - 1.0)
    assert moved[1e-6] <= 1e-6 * 1e-2 * 1.01 + 1e-7
    assert moved[0.0] > 1e-5


# ------------------------------------------------------------------------ a temperature that learns from held-out rows


def meta_trainer(folder, alpha=1.0, every=1, **changes):
    policy = MetaTemperature(start=2.0, rate=0.1, every=every)
    teacher = bert(1)
    teacher.classifier.weight.data *= 40  # with something to say, so that T matters
    objective = DistillationObjective(temperature=policy, alpha=alpha)
    return policy, trainer(folder, objective=objective, targets=FrozenTeacher(teacher, LABELS), **changes)


def test_examples_held_out_are_never_trained_on_and_the_steps_stay(tmp_path):
    policy, run = meta_trainer(tmp_path, num_train_epochs=3)
    plain = trainer(tmp_path, num_train_epochs=3)
    seen = set()
    real = run.targets

    class Watched:
        labels = real.labels

        def __call__(self, batch):
            seen.update(batch["example_id"])
            return real(batch)

    run.targets = Watched()
    run.train()
    plain.train()
    held = {example["id"] for example in run._held.examples}
    assert len(held) == 16
    assert not seen & held
    assert seen | held == {f"x{i}" for i in range(32)}
    assert run.state.global_step == plain.state.global_step == 12
    assert int(policy.moves) == 12
    assert policy.temperature != 2.0


def test_it_learns_at_each_every_th_step_once_however_the_batch_is_split(tmp_path):
    once, whole = meta_trainer(tmp_path / "a", every=2, per_device_train_batch_size=16, max_steps=6)
    split, parts = meta_trainer(
        tmp_path / "b", every=2, per_device_train_batch_size=4, gradient_accumulation_steps=4, max_steps=6
    )
    parts._held.size = whole._held.size  # a held-out batch is as large as a micro-batch otherwise
    whole.train()
    parts.train()
    assert int(once.moves) == int(split.moves) == 3
    assert float(split.log_temperature) == pytest.approx(float(once.log_temperature), abs=1e-3)
    assert once.temperature != 2.0


def test_looking_ahead_changes_nothing_but_the_temperature(tmp_path):
    """At a rate that moves T by nothing the student is that of a constant T, dropout and all."""
    model = {"hidden_dropout_prob": 0.3}
    results = []
    for every in (1, 10_000):
        objective = DistillationObjective(temperature=MetaTemperature(start=3.0, rate=1e-30, every=every), alpha=0.7)
        results.append(trainer(tmp_path / str(every), model=bert(2, **model), objective=objective))
        results[-1].train()
    assert int(results[0].objective.temperature.moves) == 8
    assert_same_weights(results[0].model, results[1].model)


def test_without_a_teacher_nothing_is_held_out(tmp_path):
    policy, run = meta_trainer(tmp_path, alpha=0.0, num_train_epochs=1)
    assert len(run.train_dataset) == len({example["id"] for example in run.train_dataset}) == 32
    run.train()
    assert (policy.temperature, int(policy.moves)) == (pytest.approx(2.0), 0)


def test_a_data_set_with_columns_is_held_out_too(tmp_path):
    columns = {key: [row[key] if key == "id" else row[key].tolist() for row in examples()] for key in examples()[0]}
    data = Dataset.from_dict(columns | {"unused": list(range(32))}).with_format("torch")
    policy, run = meta_trainer(tmp_path, data=data, remove_unused_columns=True, max_steps=2)
    same, plain = meta_trainer(tmp_path, max_steps=2)
    run.train()
    plain.train()
    assert policy.temperature == same.temperature != 2.0


def test_an_unlabelled_example_learns_from_the_teacher_alone(tmp_path):
    """Its labels only say where its rows are: whatever they are, the loss is the same, that of rows without a label."""
    objective, rows = DistillationObjective(temperature=2.0, alpha=0.3), examples(8)
    other = [row | {"labels": torch.where(row["labels"] < 0, -100, 0)} if row["id"] == "x1" else row for row in rows]
    run = trainer(tmp_path, objective=objective, unlabelled=["x1"])
    one, two = (run.compute_loss(run.model.eval(), collate(some)) for some in (rows, other))
    assert torch.equal(one, two)
    plain = trainer(tmp_path, objective=objective)
    assert not torch.equal(plain.compute_loss(plain.model.eval(), collate(rows)), one)
    batch = collate(rows)
    there = batch["labels"] != -100
    labels = batch["labels"].clone()
    labels[1] = -100
    logits = run.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = objective(
        student_logits=logits[there], teacher_logits=run.targets(batch), labels=labels[there],
        mask=torch.ones(int(there.sum()), dtype=torch.bool),
    )  # fmt: skip
    torch.testing.assert_close(one, expected.total)
    assert torch.isfinite(torch.tensor(run.train().training_loss))
