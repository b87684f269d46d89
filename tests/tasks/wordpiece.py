"""A small WordPiece tokenizer whose every id is known beforehand."""

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPECIAL = ("[UNK]", "[CLS]", "[SEP]", "[MASK]", "[PAD]")  # the pad token is not 0: nothing may take it for granted
UNK, CLS, SEP, MASK, PAD = range(5)


def wordpiece(pieces, **options):
    """Lower-casing; the first of ``pieces`` has the id 5."""
    vocabulary = {piece: i for i, piece in enumerate((*SPECIAL, *pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    names = {f"{token[1:-1].lower()}_token": token for token in SPECIAL}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, **{"model_input_names": inputs} | names | options
    )
