"""Pre-training on raw text: masked or causal language modelling, or a teacher's inner states; tokenizers for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    DataCollatorForLanguageModeling,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
)

from setpoint import processes
from setpoint.arguments import training_arguments
from setpoint.checkpoints import MarkComplete, latest_checkpoint
from setpoint.errors import DataError, ModelError
from setpoint.feature_training import FeatureTrainer, seeded_features
from setpoint.models import check_vocabulary, load_model, save_model
from setpoint.progress import ProgressBar
from setpoint.recipe import ConfigModel, PretrainedModel, PretrainRecipe
from setpoint.surgery import sees_ahead, set_dropout, usable_positions
from setpoint.targets.teacher import FrozenTeacher
from setpoint.tasks.packed import UNREADABLE, plain_name, read_text, split_lines

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}

HEADS = {"masked": AutoModelForMaskedLM, "causal": AutoModelForCausalLM, "features": AutoModel}

END_OF_TEXT, PADDING = "<|endoftext|>", "<|padding|>"


def read_texts(path: str | Path, field: str = "pretrain.text") -> list[str]:
    """The texts of a file, one a line; of JSONL, the field ``text``; packed ones too. ``field`` names it in errors.

    Raises:
        DataError: the file does not exist, is no text, or is empty.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{field} '{path}' does not exist", "give the path of a text file")
    try:
        lines = split_lines(read_text(path))
        if plain_name(path).endswith(".jsonl"):
            lines = [json.loads(line)["text"] for line in lines if line.strip()]
            for text in lines:
                str.encode(text)  # fails for what is no string, and for half a surrogate pair
    except (*UNREADABLE, ValueError, KeyError, TypeError, RecursionError):
        raise DataError(
            f"{field} '{path}' cannot be read", "give UTF-8 text, one example a line, or JSONL with 'text'"
        ) from None
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise DataError(f"{field} '{path}' has no text", "give a file with some")
    return texts


def train_tokenizer(texts: Sequence[str], vocab_size: int, max_length: int = 512) -> PreTrainedTokenizerFast:
    """A lower-casing WordPiece tokenizer in BERT's manner, trained on these texts; the same texts give the same one.

    Examples:
        >>> tokenizer = train_tokenizer(["the cat sat", "the hat sat"], vocab_size=100)
        >>> tokenizer.decode(tokenizer("The cat")["input_ids"])
        '[CLS] the cat [SEP]'
    """
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.normalizer = normalizers.BertNormalizer(lowercase=True)
    learner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # The trainer numbers the pieces ##c in the order of a hash map, another one at each call, and breaks ties between
    # merges by number; named as special tokens they come first, in the order given here.
    inside = {
        f"##{sign}"
        for text in texts
        for word, _ in learner.pre_tokenizer.pre_tokenize_str(learner.normalizer.normalize_str(text))
        for sign in word[1:]
    }
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=[*SPECIAL.values(), *sorted(inside)], show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    # A plain tokenizer with that vocabulary: to this one only the tokens of SPECIAL are special.
    tokenizer = Tokenizer(models.WordPiece(learner.get_vocab(), unk_token="[UNK]"))
    tokenizer.normalizer = learner.normalizer
    tokenizer.pre_tokenizer = learner.pre_tokenizer
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    inputs = ["input_ids", "token_type_ids", "attention_mask"]  # the types tell the texts of a pair apart
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=max_length, model_input_names=inputs, **SPECIAL
    )


def train_byte_tokenizer(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer in GPT-2's manner, for language models: it loses nothing, and ends texts by a token.

    Source: Sennrich et al. 2016, arXiv:1508.07909; on bytes, Radford et al. 2019.

    Args:
        texts: to learn from; the same texts give the same tokenizer.
        vocab_size: entries, at most: 256 bytes, the two special tokens, and merges.

    Examples:
        >>> tokenizer = train_byte_tokenizer(["the cat sat", "the hat sat"], vocab_size=300)
        >>> tokenizer.decode(tokenizer("The càt")["input_ids"])
        ' The càt'
    """
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    learner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT, PADDING],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=learner,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=PADDING,
        model_input_names=["input_ids", "attention_mask"],
    )


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
        """Called when an epoch begins."""
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


class _SetEpoch(TrainerCallback):
    """Tell the data set its epoch; the data loader does not when training resumes in the middle of one."""

    def __init__(self, texts: MaskedTexts) -> None:
        self.texts = texts

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # The Trainer keeps epoch + step / steps, whole when an epoch begins: the whole part is never one too many.
        self.texts.set_epoch(int(state.epoch))


def pretrain(
    spec: PretrainedModel | ConfigModel,
    tokenizer: Any,
    recipe: PretrainRecipe,
    folder: str | Path,
    scratch: str | Path,
    *,
    seed: int = 0,
    teacher: PretrainedModel | ConfigModel | None = None,
    dropout: float | None = None,
) -> list[dict[str, Any]]:
    """Train a model on raw text, and leave it in a folder that any task's Auto class loads its body from.

    Args:
        spec: the model to start from.
        tokenizer: its tokenizer; its teacher's too.
        recipe: the text, the objective and the training.
        folder: where model and tokenizer go.
        scratch: where checkpoints go; a killed pre-training resumes from them.
        seed: of new weights, masks and order.
        teacher: whose inner states are learnt, with the objective ``features``; any head of it stays unused.
        dropout: the model's; the architecture's own where None.

    Returns:
        the training's log.

    Raises:
        DataError: the text cannot be used.
        ModelError: the model cannot be built, or has no such objective.
    """
    folder, objective = Path(folder), recipe.objective
    masked = objective == "masked"
    if masked and tokenizer.mask_token is None:
        raise ModelError(
            "the tokenizer has no mask token", "set pretrain.objective to causal, or new_tokenizer to true"
        )
    texts = read_texts(recipe.text)
    pieces = tokenizer(texts, truncation=True, max_length=recipe.max_length, return_special_tokens_mask=masked)
    examples = [dict(zip(pieces, values, strict=True)) for values in zip(*pieces.values(), strict=True)]
    model = load_model(spec, HEADS[objective], None, tokenizer, seed=seed)
    if dropout is not None:
        set_dropout(model, dropout)
    _check_fit(model, tokenizer, recipe)
    encoder = getattr(model.config, "is_decoder", None) is False
    learning: dict[str, Any] = {"train_dataset": examples}
    callbacks: list[TrainerCallback] = [MarkComplete(), ProgressBar(folder.name)]
    if masked:
        data = MaskedTexts(examples, tokenizer, recipe.mask_probability, seed)
        callbacks.append(_SetEpoch(data))
        learning = {"train_dataset": data, "data_collator": DataCollatorForTokenClassification(tokenizer)}
    elif objective == "causal":
        model = _causal(model)
        learning["data_collator"] = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    else:
        assert teacher is not None
        learning |= _taught(model, teacher, tokenizer, recipe, seed)
    # A tenth of the way at a time: pre-training is long, and often a single epoch.
    train = recipe.train.model_copy(
        update={"arguments": {"save_strategy": "steps", "save_steps": 0.1} | recipe.train.arguments}
    )
    arguments = training_arguments(train, scratch, seed, section="pretrain.train")
    make = FeatureTrainer if objective == "features" else Trainer
    trainer = make(model=model, args=arguments, callbacks=callbacks, **learning)
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.train(resume_from_checkpoint=latest_checkpoint(scratch))
    if encoder:
        trainer.model.config.is_decoder = False  # a task takes the body as the encoder it is
    if processes.leads():
        save_model(trainer.model, tokenizer, folder)
    return trainer.state.log_history


def _taught(
    model: PreTrainedModel, spec: PretrainedModel | ConfigModel, tokenizer: Any, recipe: PretrainRecipe, seed: int
) -> dict[str, Any]:
    """What a trainer needs for a model to learn the inner states of a teacher: the teacher, and what is compared."""
    teacher = load_model(spec, AutoModel, None, tokenizer, field="the teacher of student.pretrain")
    _check_fit(teacher, tokenizer, recipe, "teacher")
    features = seeded_features(recipe.features, model, teacher, seed, "student.pretrain.features")
    return {
        "features": features,
        "teacher": FrozenTeacher(teacher, labels=()),
        "data_collator": DataCollatorWithPadding(tokenizer),
    }


def _check_fit(model: PreTrainedModel, tokenizer: Any, recipe: PretrainRecipe, who: str = "model") -> None:
    check_vocabulary(model, tokenizer, "model to pre-train" if who == "model" else who)
    positions = usable_positions(model)
    if positions is not None and recipe.max_length > positions:
        raise ModelError(
            f"pretrain.max_length is {recipe.max_length} while the {who} has {positions} positions",
            f"give at most {positions}",
        )


def _causal(model: PreTrainedModel) -> PreTrainedModel:
    """The model with no token seeing those after it; an encoder such as BERT is built again as a decoder for that."""
    if getattr(model.config, "is_decoder", None) is False:
        model.config.is_decoder = True
        with torch.random.fork_rng():
            decoder = type(model)(model.config)
        decoder.load_state_dict(model.state_dict())
        model = decoder
    if sees_ahead(model):
        raise ModelError(
            f"pretrain.objective is causal while {type(model).__name__} sees the words it is to predict",
            "set it to masked, or give another model",
        )
    return model
