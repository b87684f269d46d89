"""A vocabulary cut to what a corpus needs: which pieces stay, in the tokenizer and in the model."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer, PreTrainedModel

from setpoint.errors import ModelError
from setpoint.surgery import usable_positions


def count_pieces(encoded: Iterable[Sequence[int]], size: int) -> np.ndarray:
    """How often each id occurs in encoded texts, ``[size]``.

    Examples:
        >>> count_pieces([[2, 5, 3], [2, 5, 5, 3]], 6)
        array([0, 0, 2, 2, 0, 3])
    """
    counts = np.zeros(size, dtype=np.int64)
    for ids in encoded:
        counts += np.bincount(ids, minlength=size)
    return counts


def choose_pieces(tokenizer: Any, counts: np.ndarray, most: int | None = None) -> list[int]:
    """The ids that stay, in order: those that occur, the most frequent first, and all that any word may need.

    A piece always stays where it is special or was added, or is a single sign, at the start of a word or inside, so
    that every word can still be written. A piece that byte-pair merges make stays with the pieces it is made from.

    Args:
        tokenizer: a fast one of transformers.
        counts: how often each id occurs, ``[V]``.
        most: ids that stay at most; ties go to the lower id.

    Raises:
        ModelError: the tokenizer is of another kind, or ``most`` leaves no room for the pieces that always stay.

    Examples:
        >>> from setpoint.pretraining import train_tokenizer
        >>> tokenizer = train_tokenizer(["the cat sat", "the hat sat"], vocab_size=100)
        >>> counts = count_pieces(tokenizer(["the cat"])["input_ids"], len(tokenizer))
        >>> kept = tokenizer.convert_ids_to_tokens(choose_pieces(tokenizer, counts))
        >>> "the" in kept, "hat" in kept, "h" in kept
        (True, False, True)
    """
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    kept, parents = _always(tokenizer, model), _parents(model)
    if most is not None and most < len(kept):
        raise ModelError(
            f"student.model.vocabulary.most is {most} while special tokens and single signs are {len(kept)}",
            f"give at least {len(kept)}",
        )
    for piece in np.lexsort((np.arange(len(counts)), -counts)):
        if counts[piece] == 0:
            break
        wanted = _with_parents(int(piece), parents) - kept
        if most is None or len(kept) + len(wanted) <= most:
            kept |= wanted
    return sorted(kept)


def _always(tokenizer: Any, model: dict[str, Any]) -> set[int]:
    added = {*tokenizer.get_added_vocab().values(), *tokenizer.all_special_ids}
    if model["type"] == "WordPiece":
        prefix = model["continuing_subword_prefix"]
        return added | {i for piece, i in model["vocab"].items() if len(piece.removeprefix(prefix)) == 1}
    if model["type"] == "BPE":
        signs = set(pre_tokenizers.ByteLevel.alphabet())
        if signs <= model["vocab"].keys():
            return added | {model["vocab"][sign] for sign in signs}
    raise ModelError(
        f"student.model.vocabulary is given for a tokenizer of kind {model['type']}",
        "leave it out: only WordPiece and byte-level BPE can be cut",
    )


def _parents(model: dict[str, Any]) -> dict[int, set[int]]:
    """For each piece that merges make, the pieces they make it from; of all merges, so that any order finds its own."""
    parents: dict[int, set[int]] = {}
    for pair in _pairs(model):
        made = model["vocab"]["".join(pair)]
        parents.setdefault(made, set()).update(model["vocab"][part] for part in pair)
    return parents


def _pairs(model: dict[str, Any]) -> list[list[str]]:
    return [pair.split(" ") if isinstance(pair, str) else pair for pair in model.get("merges", ())]


def _with_parents(piece: int, parents: dict[int, set[int]]) -> set[int]:
    found, open_ = set(), [piece]
    while open_:
        piece = open_.pop()
        if piece not in found:
            found.add(piece)
            open_.extend(parents.get(piece, ()))
    return found


def prune_tokenizer(tokenizer: Any, kept: Sequence[int]) -> Any:
    """The tokenizer without all other pieces; piece ``kept[i]`` has the id ``i``.

    A text that the whole tokenizer cuts into kept pieces only is cut into the same ones: WordPiece takes the longest
    piece that fits, and of fewer pieces the same one is the longest; byte-pair encoding makes the first merge that
    fits, and the merges that made the kept pieces are kept.
    """
    new = {old: i for i, old in enumerate(kept)}
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    model = content["model"]
    vocabulary = {piece: i for piece, i in model["vocab"].items() if i in new}
    if "merges" in model:
        model["merges"] = [pair for pair in _pairs(model) if all(part in vocabulary for part in (*pair, "".join(pair)))]
    model["vocab"] = {piece: new[i] for piece, i in sorted(vocabulary.items(), key=lambda item: item[1])}
    for token in content["added_tokens"]:
        token["id"] = new[token["id"]]
    after = content["post_processor"]
    for step in [after, *((after or {}).get("processors") or ())]:
        _renumber(step, new)
    if content["padding"] is not None:
        content["padding"]["pad_id"] = new[content["padding"]["pad_id"]]
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        (Path(folder) / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        pruned = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    pruned.name_or_path = ""
    return pruned


def _renumber(step: dict[str, Any] | None, new: dict[int, int]) -> None:
    """Give the special tokens of one step that adds them their new ids."""
    if step is None:
        return
    for token in (step.get("special_tokens") or {}).values():  # of a template
        token["ids"] = [new[i] for i in token["ids"]]
    for name in ("cls", "sep"):  # of BERT's and RoBERTa's own
        if isinstance(step.get(name), list):
            step[name][1] = new[step[name][1]]


def prune_embeddings(model: PreTrainedModel, kept: Sequence[int], pad: int) -> PreTrainedModel:
    """A copy of a model whose embedding ``i`` is that of the entry ``kept[i]``; all else is the same.

    Args:
        model: has as many embeddings as the highest kept entry asks for.
        kept: the entries that stay, in order.
        pad: the new id of the pad token.

    Raises:
        ModelError: the model numbers positions from the id of its pad token, and that would change.
    """
    config = copy.deepcopy(model.config)
    config.vocab_size = len(kept)
    new = {old: i for i, old in enumerate(kept)}
    for name, value in vars(model.config).items():
        if name.endswith("_token_id") and isinstance(value, int):
            setattr(config, name, new.get(value))
    config.pad_token_id = pad
    weight = model.get_input_embeddings().weight
    state = {
        name: value[list(kept)] if value.data_ptr() == weight.data_ptr() else value
        for name, value in model.state_dict().items()
    }
    with torch.random.fork_rng(devices=[]):
        student = type(model)(config)
    if usable_positions(student) != usable_positions(model):
        raise ModelError(
            f"student.model.vocabulary would move the pad token of a {config.model_type}, by which it counts positions",
            "leave vocabulary out",
        )
    student.load_state_dict(state)
    return student.train(model.training)
