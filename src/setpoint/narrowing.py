"""A smaller encoder that does what a larger one of BERT's kind does, layer after layer, on a sample of texts.

The student's hidden states are to be ``Qᵀ h`` of the teacher's, with Q an orthonormal basis of their principal
directions (the idea of SliceGPT, arXiv:2401.15024; here a LayerNorm follows each sum, which no projection commutes
with). So each linear map is a least-squares fit from what the student itself has at that place to what the teacher has
there, held to the teacher's own weights in that basis: each layer makes up for what those before it have lost, and for
layers that are left out. Each LayerNorm is fitted after the map before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from setpoint.maths.fitting import fit_scale, least_squares, most_important, principal_basis, smaller_product

Batch = dict[str, Tensor]
Place = tuple[nn.Module, bool]
"""A module, and whether its input is wanted (True) or its output."""


@torch.no_grad()
def observe(model: nn.Module, batches: Sequence[Batch], places: dict[str, Place]) -> dict[str, Tensor]:
    """What a model has at some places, on the tokens of batches that are no padding.

    Args:
        model: run in evaluation mode.
        batches: its inputs, with ``attention_mask``.
        places: where, by name.

    Returns:
        by name ``[N, …]``, float32 and on the CPU; N tokens, or examples where the model has a row for each.
    """
    kept: dict[str, list[Tensor]] = {name: [] for name in places}
    with _listening(places, kept):
        for batch in batches:
            model(**batch)
    masks = [batch["attention_mask"].bool() for batch in batches]
    return {
        name: torch.cat([v[mask] if v.ndim > mask.ndim else v for v, mask in zip(values, masks, strict=True)])
        for name, values in kept.items()
    }


@contextmanager
def _listening(places: dict[str, Place], kept: dict[str, list[Tensor]]) -> Iterator[None]:
    def note(name: str, incoming: bool) -> Any:
        def hook(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            kept[name].append((given[0] if incoming else output).float())

        return hook

    handles = [module.register_forward_hook(note(name, incoming)) for name, (module, incoming) in places.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _first_layers(body: Any, count: int) -> Iterator[None]:
    """The body with its first layers alone: nobody needs what the others would do."""
    layers = body.encoder.layer
    body.encoder.layer = layers[:count]
    try:
        yield
    finally:
        body.encoder.layer = layers


def hidden_basis(teacher: PreTrainedModel, layers: Sequence[int], batches: Sequence[Batch], size: int) -> Tensor:
    """The basis ``[D, size]`` of the teacher's hidden states: of its embeddings and of the layers that have an heir."""
    body = teacher.base_model
    width = teacher.config.hidden_size
    if size == width:
        return torch.eye(width)
    chosen = [body.encoder.layer[index] for index in layers]
    norms = [norm for layer in chosen for norm in (layer.attention.output.LayerNorm, layer.output.LayerNorm)]
    places: dict[str, Place] = {str(number): (norm, False) for number, norm in enumerate(norms)}
    with _first_layers(body, max(layers) + 1):
        states = observe(body, batches, places | {"embeddings": (body.embeddings, False)})
    gain = torch.stack([norm.weight.detach() for norm in norms]).mean(0)
    return principal_basis(list(states.values()), size, gain)


# ---------------------------------------------------------------------------------------------------- layers


@torch.no_grad()
def fit_layers(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    layers: Sequence[int],
    batches: Sequence[Batch],
    basis: Tensor,
) -> list[float]:
    """Make each of the student's layers do what that layer of the teacher does; embeddings are there already.

    Args:
        student: of BERT's kind, in evaluation mode.
        teacher: likewise; at least as wide, with at least as many heads and neurons.
        layers: the teacher's layer that each of the student's is heir of.
        batches: inputs of both.
        basis: of the hidden states, ``[D, d]``.

    Returns:
        for each layer the mean cosine between its output and the teacher's in the basis.
    """
    body, source = student.base_model, teacher.base_model
    with _first_layers(body, 0):
        hidden = observe(body, batches, {"x": (getattr(body, "embeddings_project", body.embeddings), False)})["x"]
    cosines = []
    for number, index in enumerate(layers):
        layer, original = body.encoder.layer[number], source.encoder.layer[index]
        with _first_layers(source, index + 1):
            seen = observe(source, batches, _places(original))
        start = basis.T @ _fit_heads(layer.attention.self, original.attention, hidden, seen, basis)
        with _first_layers(body, number + 1):
            context = observe(body, batches, {"context": (layer.attention.output.dense, True)})["context"]
        wanted = seen["middle"] @ basis
        middle = _fit_sum(layer.attention.output, context, hidden, seen["first sum"] @ basis, wanted, start)
        outer, inner = original.output.dense.weight, original.intermediate.dense.weight
        neurons = most_important(seen["after"], outer, outer.shape[1], layer.output.dense.in_features)
        _set(layer.intermediate.dense, *least_squares(middle, seen["before"][:, neurons], inner[neurons] @ basis))
        start, wanted = basis.T @ outer[:, neurons], seen["out"] @ basis
        hidden = _fit_sum(layer.output, layer.intermediate(middle), middle, seen["second sum"] @ basis, wanted, start)
        cosines.append(float(functional.cosine_similarity(hidden, wanted).mean()))
    return cosines


def _places(layer: Any) -> dict[str, Place]:
    attention, heads = layer.attention, layer.attention.self
    return {
        "query": (heads.query, False),
        "key": (heads.key, False),
        "value": (heads.value, False),
        "context": (attention.output.dense, True),
        "first sum": (attention.output.LayerNorm, True),
        "middle": (attention.output.LayerNorm, False),
        "before": (layer.intermediate.dense, False),
        "after": (layer.output.dense, True),
        "second sum": (layer.output.LayerNorm, True),
        "out": (layer.output.LayerNorm, False),
    }


def _fit_heads(heads: Any, attention: Any, inputs: Tensor, seen: dict[str, Tensor], basis: Tensor) -> Tensor:
    """Query, key and value for the most important heads; gives the ``[D, heads · size]`` to take their results out by.

    Where the student's heads are smaller than the teacher's, a head's two products (query with key, value with output)
    are brought to the lower rank.
    """
    of, outer = attention.self, attention.output.dense.weight
    size, of_size = heads.attention_head_size, of.attention_head_size
    columns = most_important(seen["context"], outer, of.num_attention_heads, heads.num_attention_heads)
    maps = {}
    for name in ("query", "key", "value"):
        weight, bias = least_squares(inputs, seen[name][:, columns], getattr(of, name).weight[columns] @ basis)
        maps[name] = torch.cat([weight, bias[:, None]], 1)  # on inputs with a 1 at their end
    outer = outer[:, columns]
    if size < of_size:
        inputs = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], 1)
        moment, one = inputs.T @ inputs / len(inputs), torch.eye(len(outer))
        found: dict[str, list[Tensor]] = {"query": [], "key": [], "value": [], "outer": []}
        for rows in torch.arange(len(columns)).split(of_size):
            query, key = smaller_product(maps["query"][rows].T, maps["key"][rows], moment, moment, size)
            out, value = smaller_product(outer[:, rows], maps["value"][rows], one, moment, size)
            # Attention divides by the root of a head's size, which is another one now.
            for name, part in zip(found, (query.T * (size / of_size) ** 0.5, key, value, out.T), strict=True):
                found[name].append(part)
        maps = {name: torch.cat(parts) for name, parts in found.items()}
        outer = maps.pop("outer").T
    for name, both in maps.items():
        _set(getattr(heads, name), both[:, :-1], both[:, -1])
    return outer


def _fit_sum(output: Any, inner: Tensor, skipped: Tensor, sums: Tensor, wanted: Tensor, start: Tensor) -> Tensor:
    """Fit a map into the residual stream to the sums before its LayerNorm, then the LayerNorm; gives what comes out."""
    _set(output.dense, *least_squares(inner, sums - skipped, start))
    sums = output.dense(inner) + skipped
    fit_norm(output.LayerNorm, sums, wanted)
    return output.LayerNorm(sums)


def _set(linear: Any, weight: Tensor, bias: Tensor) -> None:
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)


@torch.no_grad()
def fit_norm(norm: nn.LayerNorm, inputs: Tensor, wanted: Tensor) -> None:
    """Set gain and bias of a LayerNorm so that it gives the nearest to ``wanted``, of inputs ``[N, d]``."""
    bare = functional.layer_norm(inputs, norm.normalized_shape, eps=norm.eps)
    gain, bias = fit_scale(bare, wanted)
    norm.weight.copy_(gain)
    norm.bias.copy_(bias)


# ---------------------------------------------------------------------------------------------------- heads


@torch.no_grad()
def fit_head(student: PreTrainedModel, teacher: PreTrainedModel, batches: Sequence[Batch], basis: Tensor) -> None:
    """Fit the student's classifier to the teacher's logits, and the dense layer in front of it where there is one.

    Such a dense layer (BERT's pooler, the head of ELECTRA and RoBERTa) is as wide as the hidden states: the student
    gets the neurons that matter most.
    """
    (mine, classifier), (dense, of) = _head(student), _head(teacher)
    seen = observe(teacher, batches, {"inputs": (of, True), "logits": (of, False)})
    start = of.weight @ basis
    if dense is not None:
        neurons = most_important(seen["inputs"], of.weight, of.in_features, classifier.in_features)
        before = observe(teacher, batches, {"before": (dense, False)})["before"][:, neurons]
        inputs = observe(student, batches, {"inputs": (mine, True)})["inputs"]
        _set(mine, *least_squares(inputs, before, dense.weight[neurons] @ basis))
        start = of.weight[:, neurons]
    inputs = observe(student, batches, {"inputs": (classifier, True)})["inputs"]
    _set(classifier, *least_squares(inputs, seen["logits"], start))


def _head(model: PreTrainedModel) -> tuple[Any, Any]:
    """The dense layer in front of a classifier, or None where there is none, and the classifier itself."""
    pooler, head = getattr(model.base_model, "pooler", None), model.classifier
    if isinstance(head, nn.Linear):
        return (None if pooler is None else pooler.dense), head
    return head.dense, head.out_proj
