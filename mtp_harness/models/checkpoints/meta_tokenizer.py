"""`tokenizer.model` (SentencePiece) as a transformers tokenizer with SentencePiece's own token ids.

transformers' `LlamaTokenizer` reads the raw file differently from SentencePiece in ways that matter
for code: it drops the extra space before text that begins with one, adds no BOS, and reads `<s>` or
`</s>` in a prompt as control tokens. So the tokenizer is built here: BPE whose merges follow the
pieces' scores, SentencePiece's normalisation, and text that is never read as a control token. Every
prompt begins with BOS and none ends with EOS, as in Meta's `llama/generation.py`.
"""

from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mtp_harness.models.checkpoints.checks import is_lfs_pointer, one_line

TOKENIZER_FILE = "tokenizer.model"
SPACE = "\u2581"
"""SentencePiece's mark for a space."""

_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6  # piece types of sentencepiece_model.proto

_SELF_CHECK = (
    "def f(x, y):\n    return x  # caf\u00e9\n\n\tif a != b:  \n",
    "  two spaces, </s> and <0x0A> as text, \u6f22\u5b57 \U0001f600 \u2581",
    "",
    " ",
    "aaaaaaaaa          1234567 ==== ",
)


def find_tokenizer(folder: Path) -> Path | None:
    """Return `tokenizer.model` beside the weights or one folder up, None if it is in neither."""
    candidates = (folder / TOKENIZER_FILE, folder.absolute().parent / TOKENIZER_FILE)
    return next((path for path in candidates if path.is_file()), None)


def sentencepiece_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Return a SentencePiece BPE model as a fast tokenizer.

    Decoding the tokens of an answer alone drops one leading space, which SentencePiece adds to
    every text: an answer must be decoded together with the text before it. Bytes that are not UTF-8
        become
    one U+FFFD each; SentencePiece keeps what it can of such a run.
    """
    proto, reference = _read(path)
    backend = Tokenizer(_bpe(proto))
    backend.normalizer = _normalizer(proto.normalizer_spec)
    backend.decoder = _decoder(proto.normalizer_spec)
    special = [p.piece for p in proto.pieces if p.type in (_UNKNOWN, _CONTROL)]
    backend.add_special_tokens([AddedToken(s, normalized=False, special=True) for s in special])
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        bos_token=reference.id_to_piece(reference.bos_id()),
        eos_token=reference.id_to_piece(reference.eos_id()),
        unk_token=reference.id_to_piece(reference.unk_id()),
        add_bos_token=True,
        add_eos_token=False,
        split_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )
    for text in _SELF_CHECK:
        if tokenizer.encode(text, add_special_tokens=False) != reference.encode(text):
            raise ValueError(
                f"{path} splits text in a way that is not reproduced here, expected a Llama "
                "tokenizer: pass tokenizer=… with a converted one"
            )
    return tokenizer


def _read(path: Path) -> tuple[Any, Any]:
    """Return a tokenizer's protocol buffer and its processor; refuse anything but plain BPE."""
    proto = sentencepiece_model_pb2.ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
        processor = SentencePieceProcessor(model_file=str(path))
    except Exception as error:  # protobuf's and sentencepiece's errors have no common class
        cure = "run `git lfs pull`" if is_lfs_pointer(path) else "fetch it again"
        raise ValueError(
            f"{path} is not a SentencePiece model ({one_line(error)}), expected Llama's: {cure}"
        ) from error
    kinds = {piece.type for piece in proto.pieces}
    is_bpe = proto.trainer_spec.model_type == proto.trainer_spec.BPE
    if not is_bpe or kinds - {_NORMAL, _UNKNOWN, _CONTROL, _BYTE}:
        raise ValueError(
            f"{path} is a SentencePiece model of another kind, expected BPE without user-defined "
            "pieces as Llama's: pass tokenizer=… with a converted one"
        )
    if min(processor.bos_id(), processor.eos_id(), processor.unk_id()) < 0:
        raise ValueError(
            f"{path} lacks BOS, EOS or the unknown piece, expected all three as in Llama's: pass "
            "tokenizer=… with a complete one"
        )
    return proto, processor


def _bpe(proto: Any) -> BPE:
    """Return BPE that merges the pair whose joint piece scores highest, as SentencePiece does."""
    scores = {piece.piece: piece.score for piece in proto.pieces if piece.type == _NORMAL}
    merges = [
        (-score, cut, piece[:cut], piece[cut:])
        for piece, score in scores.items()
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]
    return BPE(
        vocab={piece.piece: index for index, piece in enumerate(proto.pieces)},
        merges=[(left, right) for _, _, left, right in sorted(merges)],
        unk_token=proto.trainer_spec.unk_piece,
        fuse_unk=True,
        byte_fallback=proto.trainer_spec.byte_fallback,
    )


def _decoder(spec: Any) -> decoders.Decoder:
    # ByteFallback drops a whole run of byte pieces for one incomplete character. Line ends and tabs
    # are such pieces in Llama's vocabulary: taken out of the run first, they survive, and a stop
    # string with a newline is found even if the character after it is still incomplete.
    steps: list[decoders.Decoder]
    steps = [decoders.Replace(f"<0x{ord(mark):02X}>", mark) for mark in "\t\n\r"]
    steps += [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if spec.add_dummy_prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    return decoders.Sequence(steps)


def _normalizer(spec: Any) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    steps.append(normalizers.Replace(" ", SPACE))
    return normalizers.Sequence(steps)
