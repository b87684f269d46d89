"""Self-supervised pre-training on raw text: masked or causal language modelling, and a tokenizer for it."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    DataCollatorForLanguageModeling,
    DataCollatorForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    PrinterCallback,
    ProgressCallback,
    Trainer,
)

from setpoint.arguments import training_arguments
from setpoint.checkpoints import MarkComplete, latest_checkpoint
from setpoint.errors import DataError, ModelError
from setpoint.models import check_vocabulary, load_model, save_model
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


class MaskedTexts(torch.utils.data.Dataset):
    """Texts with some tokens masked, as in BERT, anew in each epoch.

    The masks depend on seed, epoch and text alone, so training that resumes anywhere, mid-epoch too, sees the same.

    Args:
        texts: token ids, with the special tokens' mask.
        tokenizer: has a mask token.
        probability: of a token to be masked.
        seed: another seed gives other masks.
    """

    def __init__(self, texts: Sequence[dict[str, Any]], tokenizer: Any, probability: float, seed: int) -> None:
        self.texts, self.seed, self.epoch = texts, seed, 0
        self._collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=probability)

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer's data loader."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        text = dict(self.texts[index])
        special = torch.tensor([text.pop("special_tokens_mask")])
        digest = hashlib.sha256(f"{self.seed}/{self.epoch}/{index}".encode()).digest()
        self._collator.generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        ids, labels = self._collator.torch_mask_tokens(torch.tensor([text["input_ids"]]), special)
        return text | {"input_ids": ids[0].tolist(), "labels": labels[0].tolist()}


def pretrain(
    spec: PretrainedModel | ConfigModel,
    tokenizer: Any,
    recipe: PretrainRecipe,
    folder: str | Path,
    scratch: str | Path,
    *,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Train a model to predict text, and leave it in a folder that any task's Auto class loads its body from.

    Args:
        spec: the model to start from.
        tokenizer: its tokenizer.
        recipe: the text, the objective and the training.
        folder: where model and tokenizer go.
        scratch: where checkpoints go; a killed pre-training resumes from them.
        seed: of new weights, masks and order.

    Returns:
        the training's log.

    Raises:
        DataError: the text cannot be used.
        ModelError: the model cannot be built, or has no such objective.
    """
    folder = Path(folder)
    masked = recipe.objective == "masked"
    if masked and tokenizer.mask_token is None:
        raise ModelError(
            "the tokenizer has no mask token", "set pretrain.objective to causal, or new_tokenizer to true"
        )
    texts = read_texts(recipe.text)
    pieces = tokenizer(texts, truncation=True, max_length=recipe.max_length, return_special_tokens_mask=masked)
    examples = [dict(zip(pieces, values, strict=True)) for values in zip(*pieces.values(), strict=True)]
    model = load_model(spec, AutoModelForMaskedLM if masked else AutoModelForCausalLM, None, tokenizer, seed=seed)
    _check_fit(model, tokenizer, recipe)
    # A tenth of the way at a time: pre-training is long, and often a single epoch.
    train = recipe.train.model_copy(
        update={"arguments": {"save_strategy": "steps", "save_steps": 0.1} | recipe.train.arguments}
    )
    trainer = Trainer(
        model=model,
        args=training_arguments(train, scratch, seed, section="pretrain.train"),
        train_dataset=MaskedTexts(examples, tokenizer, recipe.mask_probability, seed) if masked else examples,
        data_collator=DataCollatorForTokenClassification(tokenizer)
        if masked
        else DataCollatorForLanguageModeling(tokenizer, mlm=False),
        callbacks=[MarkComplete(), ProgressBar(folder.name)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.train(resume_from_checkpoint=latest_checkpoint(scratch))
    save_model(trainer.model, tokenizer, folder)
    return trainer.state.log_history


def _check_fit(model: PreTrainedModel, tokenizer: Any, recipe: PretrainRecipe) -> None:
    check_vocabulary(model, tokenizer, "model to pre-train")
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and recipe.max_length > positions:
        raise ModelError(
            f"pretrain.max_length is {recipe.max_length} while the model has {positions} positions",
            f"give at most {positions}",
        )
