"""A CLIP tokenizer for the model's own words."""

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from benchmarks.demo_model.networks import CONTEXT

_PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"


def make_tokenizer(texts: list[str], folder: Path, size: int = 4000) -> None:
    """Learn byte pairs and save `vocab.json`, `merges.txt` and what transformers 5 writes beside them.

    All 256 bytes are known, so that no prompt holds anything unknown.
    """
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=_END))
    learner.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=size, min_frequency=2, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    merges = [
        pair if isinstance(pair, list) else pair.split(" ") for pair in json.loads(learner.to_str())["model"]["merges"]
    ]
    # CLIP's order: bytes, bytes that end a word, merges, begin, end.
    words = dict.fromkeys(
        [*letters, *(letter + "</w>" for letter in letters), *(left + right for left, right in merges)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate([*words, _BEGIN, _END])}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n")
    marks = {"pad_token": _END, "bos_token": _BEGIN, "eos_token": _END, "unk_token": _END}
    CLIPTokenizer.from_pretrained(folder, model_max_length=CONTEXT, **marks).save_pretrained(folder)
