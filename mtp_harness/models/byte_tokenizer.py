"""The 256-byte tokenizer of byte-level models: a token's id is the byte's value.

Byte 0 is BOS, EOS and padding. It is an ordinary `tokenizers` file (byte-level BPE without merges),
so `AutoTokenizer.from_pretrained` loads it without this package.
"""

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

SPECIAL = "\x00"


def printable_bytes() -> list[str]:
    """Return the character that byte-level BPE writes for each byte value.

    Printable Latin-1 characters stand for themselves, the others for characters from U+0100 on, in
    order: the published convention of byte-level BPE. It is computed so that ids equal byte values.
    """
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(value) if value in plain else chr(next(others)) for value in range(256)]


def byte_tokenizer(max_length: int) -> PreTrainedTokenizerFast:
    """Return the byte tokenizer of a model with a context of `max_length` bytes."""
    characters = printable_bytes()
    vocabulary = {character: value for value, character in enumerate(characters) if value}
    vocabulary[SPECIAL] = 0
    backend = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = ByteLevelDecoder()
    backend.add_special_tokens([AddedToken(SPECIAL, special=True, normalized=False)])
    # Every document of the training data begins with byte 0, so every prompt does, too.
    backend.post_processor = TemplateProcessing(
        single=f"{SPECIAL} $A", pair=f"{SPECIAL} $A $B", special_tokens=[(SPECIAL, 0)]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        bos_token=SPECIAL,
        eos_token=SPECIAL,
        pad_token=SPECIAL,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
