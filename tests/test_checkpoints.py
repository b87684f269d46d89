import pytest
import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from setpoint.checkpoints import MARKER, MarkComplete, latest_checkpoint


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.line = nn.Linear(2, 1)

    def forward(self, x, labels):
        out = self.line(x)[:, 0]
        return {"loss": (out - labels).pow(2).mean(), "logits": out}


def train(folder, callbacks=(), resume=None):
    generator = torch.Generator().manual_seed(1)
    data = [{"x": torch.randn(2, generator=generator), "labels": torch.tensor(1.0)} for _ in range(16)]
    trainer = Trainer(
        model=Line(),
        train_dataset=data,
        callbacks=[*callbacks, MarkComplete()],
        args=TrainingArguments(
            str(folder), num_train_epochs=4, per_device_train_batch_size=4, save_strategy="epoch", save_total_limit=2,
            learning_rate=0.1, report_to="none", disable_tqdm=True, seed=0, use_cpu=True,
        ),
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=resume)
    return trainer.model.state_dict()


def test_nothing_is_the_latest_of_nothing(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "absent") is None


def test_each_checkpoint_is_marked_and_the_last_by_number_is_the_latest(tmp_path):
    train(tmp_path)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["checkpoint-12", "checkpoint-16"]
    assert all((f / MARKER).exists() for f in tmp_path.iterdir())
    assert latest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-16")


def test_order_is_by_number_not_by_name(tmp_path):
    for step in (9, 100, 20):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / MARKER).touch()
    assert latest_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-100")


def test_a_checkpoint_that_is_not_whole_is_deleted_and_the_one_before_taken(tmp_path):
    for step in (4, 8):
        (tmp_path / f"checkpoint-{step}").mkdir()
    (tmp_path / "checkpoint-4" / MARKER).touch()
    (tmp_path / "checkpoint-8" / "model.safetensors").write_bytes(b"half")
    assert latest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-4")
    assert not (tmp_path / "checkpoint-8").exists()


class Killed(Exception):
    pass


class KillBeforeMark(TrainerCallback):
    """Stops the run when a checkpoint is written and not yet marked."""

    def on_save(self, args, state, control, **kwargs):
        if state.global_step == 12:
            raise Killed


def test_a_run_killed_while_writing_resumes_to_the_same_weights(tmp_path):
    whole = train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "broken", [KillBeforeMark()])
    latest = latest_checkpoint(tmp_path / "broken")
    assert latest == str(tmp_path / "broken" / "checkpoint-8")
    resumed = train(tmp_path / "broken", resume=latest)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
