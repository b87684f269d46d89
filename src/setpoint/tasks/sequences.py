"""What tasks of next tokens share: a row is a token, its classes are the vocabulary, and labels are shifted once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from setpoint.errors import DataError, ModelError
from setpoint.maths.tempering import log_temper
from setpoint.surgery import sees_ahead
from setpoint.tasks.base import ALL, Batch, Collate, Example, Part, References, Rows, Scores, Splits, Task
from setpoint.tasks.text import pad
from setpoint.types import IGNORED_LABEL, logits_of


class NextToken(Task):
    """Sequences of tokens; a row for each token that follows another.

    The shift is made in ``encode``, and nowhere else: ``labels[t]`` is the token after ``input_ids[t]``. No model sees
    labels. Classes beyond the tokens that can follow (padding of a vocabulary, conditions) are cut off the logits.
    """

    metric: ClassVar[str] = "likelihood"
    score_names: ClassVar[tuple[str, ...]] = ("likelihood", "accuracy")
    beside: ClassVar[tuple[str, ...]] = ("perplexity",)
    one_tokenizer: ClassVar[bool] = True
    answered: ClassVar[bool] = False
    generates: ClassVar[bool] = True

    def vocabulary(self, processor: Any) -> int:
        """How many tokens can follow: the first so many of the model's vocabulary."""
        raise NotImplementedError

    def conditions(self, splits: Splits) -> int:
        """How many tokens beside those stand at the beginning of sequences only."""
        return 0

    def logits(self, output: Any, batch: Any) -> Tensor:
        """Logits ``[B, L, C]`` of the tokens that can follow."""
        return logits_of(output)[..., : batch["task_classes"]]

    def scored(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Of each row the log-probability of its token, and 1 where that is the likeliest, else 0: ``[..., 2]``."""
        token = labels.clamp(min=0).unsqueeze(-1)
        log_probs = log_temper(logits, 1.0).gather(-1, token)
        right = logits.argmax(-1, keepdim=True) == token
        return torch.cat([log_probs, right.to(log_probs.dtype)], dim=-1)

    def collate(self, processor: Any) -> Collate:
        """Pad to the longest sequence of the batch, on the right, where no earlier token sees it."""
        classes = self.vocabulary(processor)
        fills = {"input_ids": 0 if processor is None else processor.pad_token_id, "labels": IGNORED_LABEL}

        def collate(examples: list[Example]) -> Batch:
            batch: Batch = {name: pad([one[name] for one in examples], fill) for name, fill in fills.items()}
            lengths = torch.tensor([len(one["input_ids"]) for one in examples])
            batch["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
            batch["task_classes"] = classes
            batch["example_id"] = [one["id"] for one in examples]
            return batch

        return collate

    def model_class(self) -> Any:
        """The Auto class that predicts each next token."""
        return AutoModelForCausalLM

    def check_model(
        self, model: PreTrainedModel, splits: Splits, processor: Any, examples: Sequence[Example], who: str
    ) -> None:
        """Refuse a model that has too few embeddings, or sees the tokens it is to predict."""
        there = model.get_input_embeddings().num_embeddings
        needed = self.vocabulary(processor) + self.conditions(splits)
        if there < needed:
            raise ModelError(
                f"the {who} has {there} embeddings where there are {needed} tokens",
                f"set vocab_size of its config to {needed}, or leave it out where there is a tokenizer",
            )
        if sees_ahead(model):
            raise ModelError(
                f"the {who} is a {type(model).__name__} that sees the tokens it is to predict",
                "give a causal model such as gpt2 or llama, or set is_decoder to true in its config",
            )

    def input_columns(self) -> dict[str, str]:
        """None: a model is asked for nothing."""
        return {}

    def read_input(self, value: Any, where: str) -> Any:
        """Refused: a model draws what it knows."""
        raise DataError(f"{where} is given to a model of {self.name}, which answers nothing", "give it none")

    def input_length(self, value: Any) -> int:
        """Nothing is asked."""
        return 0

    def encode_inputs(self, inputs: Sequence[Any], processor: Any) -> list[Example]:
        """Nothing is asked."""
        return []

    def answers(self, inputs: Sequence[Any], probabilities: Rows, names: tuple[str, ...]) -> list[dict[str, Any]]:
        """Nothing is asked."""
        return []

    def references(self, examples: Sequence[Example]) -> References:
        """How many rows each example has: what is scored holds all else."""
        return [np.ones(len(example["labels"])) for example in examples]

    def scores(self, logits: Rows, references: References, names: tuple[str, ...]) -> Scores:
        """The likelihood, the geometric mean of the probabilities of the right tokens; and the share predicted."""
        sums, counts = _sums(logits), np.array([len(row) for row in logits])

        def mean(column: int, part: Part) -> float:
            return float(sums[part, column].sum() / counts[part].sum())

        return {"likelihood": lambda part: float(np.exp(mean(0, part))), "accuracy": lambda part: mean(1, part)}

    def tables(self, logits: Rows, references: References, names: tuple[str, ...]) -> dict[str, Any]:
        """Perplexity: exp of the mean loss in nats."""
        return {"perplexity": float(np.exp(self.loss(logits, references)))}

    def loss(self, logits: Rows, references: References) -> float:
        """Mean nats a token, at T = 1: the temperature at which perplexity is told."""
        return float(-_sums(logits)[:, 0].sum() / sum(map(len, logits)))

    def nats(self, logits: Rows) -> float:
        """The nats of all rows together."""
        return float(-_sums(logits)[ALL, 0].sum())


def _sums(logits: Rows) -> np.ndarray:
    """Sums over each example's rows of what is scored, ``[examples, 2]``, in float64."""
    return np.array([row.sum(axis=0, dtype=np.float64) for row in logits]).reshape(-1, 2)
