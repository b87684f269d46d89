import copy
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForTokenClassification, Trainer, TrainingArguments

from setpoint import Constant, DistillationObjective, FrozenTeacher, TemperaturePolicy, Temperatures
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


def trainer(folder, model=None, objective=None, targets="live", callbacks=(), data=None, **changes):
    if targets == "live":
        targets = FrozenTeacher(bert(1), LABELS)
    return DistillationTrainer(
        model=model or bert(2),
        args=arguments(folder, **changes),
        objective=objective or DistillationObjective(temperature=3.0, alpha=0.7),
        targets=targets,
        train_dataset=data or examples(),
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


@pytest.mark.parametrize("learned", [False, True])
def test_a_resumed_training_is_bit_equal_to_an_unbroken_one(tmp_path, learned):
    def make(folder):
        objective = DistillationObjective(temperature=Learned() if learned else 3.0)
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


TWO_PROCESSES = """
    import sys
    sys.path.insert(0, {tests!r})
    import torch
    from test_training import trainer
    run = trainer({folder!r}, per_device_train_batch_size=16, lr_scheduler_type="constant", num_train_epochs=3,
                  ddp_backend="gloo")
    run.train()
    if run.args.process_index == 0:
        run.save_model({folder!r})
"""


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path, request):
    script = tmp_path / "train.py"
    folder = str(tmp_path / "two")
    script.write_text(textwrap.dedent(TWO_PROCESSES).format(tests=str(request.path.parent), folder=folder))
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        "29531",
        str(script),
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    one = trainer(tmp_path / "one", per_device_train_batch_size=32, lr_scheduler_type="constant", num_train_epochs=3)
    one.train()
    two = BertForTokenClassification.from_pretrained(folder)
    assert_same_weights(one.model, two, rtol=0, atol=2e-5)


def test_progress_reaches_the_policy(tmp_path):
    seen = []

    class Recording(Constant):
        def forward(self, teacher_logits, student_logits, labels=None, progress=0.0):
            seen.append(progress)
            return super().forward(teacher_logits, student_logits, labels, progress)

    trainer(tmp_path, objective=DistillationObjective(temperature=Recording(2.0)), max_steps=4).train()
    assert seen == [0.0, 0.25, 0.5, 0.75]
