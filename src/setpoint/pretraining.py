"""Self-supervised pre-training on raw text: masked or causal language modelling, and a tokenizer for it."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerFast,
    PrinterCallback,
    ProgressCallback,
    Trainer,
)

from setpoint.arguments import training_arguments
from setpoint.checkpoints import MarkComplete, latest_checkpoint
from setpoint.errors import DataError
from setpoint.models import load_model, save_model
from setpoint.progress import ProgressBar
from setpoint.recipe import ConfigModel, PretrainedModel, PretrainRecipe

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def read_texts(path: str | Path) -> list[str]:
    """The texts of a file, one a line; of JSONL, the field ``text``; ``.gz`` too.

    Raises:
        DataError: the file does not exist, is no text, or is empty.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"pretrain.text '{path}' does not exist", "give the path of a text file")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = content.decode("utf-8-sig").splitlines()
        if path.name.removesuffix(".gz").endswith(".jsonl"):
            lines = [json.loads(line)["text"] for line in lines if line.strip()]
    except (OSError, EOFError, UnicodeDecodeError, ValueError, KeyError, TypeError):
        raise DataError(
            f"pretrain.text '{path}' cannot be read", "give UTF-8 text, one example a line, or JSONL with 'text'"
        ) from None
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise DataError(f"pretrain.text '{path}' has no text", "give a file with some")
    return texts


def train_tokenizer(texts: Sequence[str], vocab_size: int, max_length: int = 512) -> PreTrainedTokenizerFast:
    """A lower-casing WordPiece tokenizer in BERT's manner, trained on these texts; the same texts give the same one.

    Example:
        >>> tokenizer = train_tokenizer(["the cat sat", "the hat sat"], vocab_size=100)
        >>> tokenizer.decode(tokenizer("The cat")["input_ids"])
        '[CLS] the cat [SEP]'
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=list(SPECIAL.values()), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_length, **SPECIAL)


def pretrain(
    spec: PretrainedModel | ConfigModel, tokenizer: Any, recipe: PretrainRecipe, folder: str | Path, *, seed: int = 0
) -> list[dict[str, Any]]:
    """Train a model to predict text, and leave it in a folder that any task's Auto class loads its body from.

    Args:
        spec: the model to start from.
        tokenizer: its tokenizer.
        recipe: the text, the objective and the training.
        folder: where model and tokenizer go; checkpoints lie beside it until it is done, so a killed run resumes.
        seed: of new weights, masks and order.

    Returns:
        the training's log.

    Raises:
        DataError: the text cannot be used.
        ModelError: the model cannot be built, or has no such objective.
    """
    folder = Path(folder)
    masked = recipe.objective == "masked"
    texts = read_texts(recipe.text)
    pieces = tokenizer(texts, truncation=True, max_length=recipe.max_length, return_special_tokens_mask=masked)
    examples = [dict(zip(pieces, values, strict=True)) for values in zip(*pieces.values(), strict=True)]
    model = load_model(spec, AutoModelForMaskedLM if masked else AutoModelForCausalLM, None, tokenizer, seed=seed)
    work = folder.with_name(f"{folder.name}-checkpoints")
    trainer = Trainer(
        model=model,
        args=training_arguments(recipe.train, work, seed),
        train_dataset=examples,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=masked, mlm_probability=recipe.mask_probability),
        callbacks=[MarkComplete(), ProgressBar(folder.name)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.train(resume_from_checkpoint=latest_checkpoint(work))
    save_model(trainer.model, tokenizer, folder)
    shutil.rmtree(work, ignore_errors=True)
    return trainer.state.log_history
