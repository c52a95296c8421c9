"""How many tokens a prompt has for a base model: exact, from the tokenizer's files alone, without torch."""

import json
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE

from visionsuit.engine.base import ModelUnloadable
from visionsuit.engine.checkpoints import Checkpoint, read_checkpoint
from visionsuit.engine.clip_vocabulary import clip_vocabulary, pad_token
from visionsuit.engine.prompt_syntax import fill_chunks, parse_prompt

_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True, slots=True)
class PromptSize:
    """`tokens` without begin and end; the prompt fills `chunks` of at most `room` tokens each. Of the text encoder
    with the most."""

    tokens: int
    chunks: int
    room: int


@dataclass(frozen=True, slots=True)
class _Encoder:
    tokenize: Callable[[str], list[int]]
    room: int


def measure_prompt(folder: Path, key: str, text: str) -> PromptSize:
    """Size of a prompt with its syntax (choices made, LoRA tags taken out) for the diffusers folder or checkpoint.

    Args:
        key: identifies its content.

    Raises:
        ModelUnloadable: its tokenizer cannot be read.
    """
    pieces = parse_prompt(text)
    sizes = []
    for encoder in _encoders(folder, key):
        chunks = fill_chunks(pieces, encoder.tokenize, encoder.room)
        sizes.append(PromptSize(sum(len(chunk.ids) for chunk in chunks), len(chunks), encoder.room))
    return max(sizes, key=lambda size: (size.chunks, size.tokens))


def may_fill(text: str, room: int) -> int:
    """More chunks than this no prompt fills that has chunks of `room` tokens: a bound without a tokenizer."""
    # A token is a byte at least, and a BREAK ends a chunk.
    normal = unicodedata.normalize("NFC", text).lower()
    return len(normal.encode("utf-8", "replace")) // max(1, room) + text.count("BREAK") + 1


@lru_cache(maxsize=8)
def _encoders(folder: Path, key: str) -> tuple[_Encoder, ...]:
    if folder.is_file():
        return _encoders_of(read_checkpoint(folder))
    try:
        return tuple(
            _load(folder / f"tokenizer{suffix}", folder / f"text_encoder{suffix}")
            for suffix in ("", "_2")
            if (folder / f"tokenizer{suffix}").is_dir() and _is_clip(folder / f"tokenizer{suffix}")
        ) or _fail(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelUnloadable(f"The tokenizer of the base model in {folder.name} cannot be read.") from error


def _is_clip(folder: Path) -> bool:
    return str(_json(folder / "tokenizer_config.json").get("tokenizer_class", "CLIP")).startswith("CLIP")


def _fail(folder: Path) -> tuple[_Encoder, ...]:
    raise ModelUnloadable(f"The base model in {folder.name} has no tokenizer.")


def _encoders_of(checkpoint: Checkpoint) -> tuple[_Encoder, ...]:
    """All checkpoints have CLIP's own vocabulary; it is padded as the text encoder is."""
    configs = [config for part, config in checkpoint.configs.items() if part.startswith("text_encoder")]
    return tuple(
        _make(*clip_vocabulary(), {"pad_token": pad_token(config)}, [config["max_position_embeddings"]])
        for config in configs
    )


def _load(folder: Path, text_encoder: Path) -> _Encoder:
    config = _json(folder / "tokenizer_config.json")
    limits = [config.get("model_max_length"), _json(text_encoder / "config.json").get("max_position_embeddings")]
    return _make(*_vocabulary(folder), config, limits)


def _make(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], config: dict[str, Any], limits: list[Any]
) -> _Encoder:
    """CLIP's tokenizer, from the vocabulary alone, as transformers makes it."""
    names = {name: _content(config.get(name), "<|endoftext|>") for name in ("unk_token", "eos_token", "pad_token")}
    tokenizer = Tokenizer(
        BPE(
            vocab=vocabulary,
            merges=merges,
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            fuse_unk=False,
            unk_token=names["unk_token"],
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    special = dict.fromkeys([*names.values(), _content(config.get("bos_token"), "<|startoftext|>")])
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    room = min([int(limit) for limit in limits if isinstance(limit, int | float) and limit > 2], default=77) - 2
    return _Encoder(lambda text: tokenizer.encode(text, add_special_tokens=False).ids, room)


def _vocabulary(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    whole = folder / "tokenizer.json"
    if whole.is_file():
        model = _json(whole)["model"]
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        return model["vocab"], [(left, right) for left, right in pairs]
    return BPE.read_file(str(folder / "vocab.json"), str(folder / "merges.txt"))


def _content(value: Any, default: str) -> str:
    """A token as it stands in a configuration: text, or an object that has it as `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value else default


def _json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text("utf-8"))
    if not isinstance(content, dict):
        raise ValueError(path.name)
    return content
