"""A student made from its teacher: fewer layers, fewer words, smaller embeddings, narrower layers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import ElectraConfig, PreTrainedConfig, PreTrainedModel

from setpoint.errors import ModelError
from setpoint.narrowing import Batch, fit_head, fit_layers, hidden_basis
from setpoint.recipe import ShrunkTeacher
from setpoint.small_embeddings import fit_embeddings
from setpoint.surgery import chosen_layers, cut_layers, transformer_layers
from setpoint.vocabulary import choose_pieces, prune_embeddings, prune_tokenizer

FAMILIES = ("bert", "roberta", "xlm-roberta")
"""What can be fitted: the layers of BERT, whatever their embeddings."""

WIDTHS = ("embedding_size", "hidden_size", "intermediate_size", "heads")


@dataclass(frozen=True)
class Shrunk:
    """A student made from its teacher.

    Attributes:
        model: in evaluation mode, on the CPU.
        tokenizer: the teacher's, or without what was left out of the vocabulary.
        error: mean squared error of the embedding output over its variance; None where embeddings are the teacher's.
        cosines: for each fitted layer, how near its output is to the teacher's, projected; none where none was fitted.
    """

    model: PreTrainedModel
    tokenizer: Any
    error: float | None = None
    cosines: tuple[float, ...] = ()

    def __str__(self) -> str:
        parts = [f"{self.model.num_parameters():,} parameters"]
        if self.tokenizer is not None:
            parts.append(f"{len(self.tokenizer):,} entries in its vocabulary")
        if self.error is not None:
            parts.append(f"embeddings that keep {1 - self.error:.1%} of the teacher's variance")
        if self.cosines:
            parts.append(f"layers with a cosine to the teacher's of {', '.join(f'{one:.3f}' for one in self.cosines)}")
        return ", ".join(parts)


def shrink(
    teacher: PreTrainedModel,
    tokenizer: Any,
    spec: ShrunkTeacher,
    model_class: Any,
    counts: np.ndarray,
    sample: Callable[[Any], Sequence[Batch]],
) -> Shrunk:
    """Make a student from a trained teacher; the same from the same.

    Args:
        teacher: stays as it is.
        tokenizer: the teacher's; None for a task without text.
        spec: what is to be smaller.
        model_class: the Auto class of the task.
        counts: how often the corpus has each entry of the teacher's vocabulary, ``[V]``.
        sample: gives some training examples as batches of the model's inputs, by a tokenizer.

    Raises:
        ModelError: the teacher cannot be made smaller so.
    """
    teacher = copy.deepcopy(teacher).cpu().float().eval().requires_grad_(False)
    kept: list[int] | None = None
    if spec.vocabulary is not None:
        if tokenizer is None:
            raise ModelError("student.model.vocabulary is given for a task without text", "leave it out")
        kept = choose_pieces(tokenizer, counts, spec.vocabulary.most)
        tokenizer = prune_tokenizer(tokenizer, kept)
    layers = chosen_layers(len(transformer_layers(teacher)[1]), spec)
    config = _smaller_config(teacher, spec, len(layers), model_class)
    if config is None:
        student = cut_layers(teacher, spec)
        student = student if kept is None else prune_embeddings(student, kept, tokenizer.pad_token_id)
        return Shrunk(student.eval(), tokenizer)
    if kept is not None:
        teacher, counts = prune_embeddings(teacher, kept, tokenizer.pad_token_id), counts[kept]
        config.vocab_size, config.pad_token_id = len(kept), tokenizer.pad_token_id
    with torch.random.fork_rng(devices=[]):
        student = model_class.from_config(config).eval()
    batches, error = sample(tokenizer), None
    basis = hidden_basis(teacher, layers, batches, config.hidden_size)
    if config.hidden_size == teacher.config.hidden_size and spec.embedding_size is None:
        student.base_model.embeddings.load_state_dict(teacher.base_model.embeddings.state_dict())
    else:
        error = fit_embeddings(student, teacher, torch.from_numpy(counts), batches, basis)
    cosines = fit_layers(student, teacher, layers, batches, basis)
    fit_head(student, teacher, batches, basis)
    return Shrunk(student, tokenizer, error, tuple(cosines))


def _smaller_config(
    teacher: PreTrainedModel, spec: ShrunkTeacher, layers: int, model_class: Any
) -> PreTrainedConfig | None:
    """The configuration of a student that is to be fitted; None where it has all layers, or there is no fitting it."""
    old = teacher.config
    asked = [name for name in WIDTHS if getattr(spec, name) is not None]
    if not asked and (layers == len(transformer_layers(teacher)[1]) or old.model_type not in FAMILIES):
        return None
    field = f"student.model.{asked[0] if asked else 'layers'}"
    allowed = FAMILIES[:1] if "embedding_size" in asked else FAMILIES
    if old.model_type not in allowed:
        raise ModelError(
            f"{field} is given for a teacher of kind {old.model_type}",
            f"leave it out: only {' and '.join(allowed)} can be made smaller so",
        )
    width = spec.hidden_size or old.hidden_size
    size = old.hidden_size // old.num_attention_heads
    heads = spec.heads or max(1, width // size)
    inner = spec.intermediate_size or old.intermediate_size * width // old.hidden_size
    most = {
        "embedding_size": (spec.embedding_size or width, width),
        "hidden_size": (width, old.hidden_size),
        "intermediate_size": (inner, old.intermediate_size),
        "heads": (heads, old.num_attention_heads),
    }
    for name, (value, bound) in most.items():
        if value > bound:
            raise ModelError(f"student.model.{name} is {value} where there are {bound}", f"give at most {bound}")
    if width % heads or width // heads > size:
        raise ModelError(
            f"student.model has {heads} heads for hidden_size {width}, while a head of the teacher's is {size} wide",
            f"give a hidden_size of which a head's share is whole and at most {size}",
        )
    fields = {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_attention_heads": heads,
    }
    if spec.embedding_size in (None, width):
        config = copy.deepcopy(old)
        config.update(fields)
        return config
    if ElectraConfig not in model_class._model_mapping:
        raise ModelError(
            f"{field} is given for a task that ELECTRA, which has such embeddings, is not for", "leave it out"
        )
    shared = {name: value for name, value in old.to_dict().items() if name in _SHARED}
    return ElectraConfig(**shared | fields | {"embedding_size": spec.embedding_size})


_SHARED = {
    "attention_probs_dropout_prob", "classifier_dropout", "hidden_act", "hidden_dropout_prob", "id2label",
    "initializer_range", "label2id", "layer_norm_eps", "max_position_embeddings", "pad_token_id", "problem_type",
    "type_vocab_size", "vocab_size",
}  # fmt: skip
"""What BERT's configuration and ELECTRA's have in common."""
