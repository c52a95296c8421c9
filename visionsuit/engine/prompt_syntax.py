"""Emphasis and chunks of a prompt, as AUTOMATIC1111 reads them. Text and numbers only; time grows with the length.

    (word)       1.1 times as strong; ((word)) 1.21 times; [word] 1 / 1.1 times
    (word:1.3)   1.3 times as strong
    BREAK        fills the chunk; what follows begins the next one
    \\( \\) \\[ \\] \\\\   the character itself

Whatever does not fit this is text: a bracket that closes nothing, a weight that is no number, `BREAKFAST`. A bracket
that nobody closes goes on to the end.
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

#: What one plain bracket is worth.
BRACKET = 1.1
#: A word's weight ends here, whatever its brackets say: beyond it pictures are noise, and numbers overflow.
MAX_WEIGHT = 10.0
#: Brackets inside so many others change nothing more.
MAX_DEPTH = 64
#: Chunks that one prompt may fill; the cost of a step grows with them.
MAX_CHUNKS = 64

_TOKEN = re.compile(
    r"""
    \\[()\[\]\\] | \\
  | \( | \[
  | :[ \t]{0,16}(?P<weight>[+-]?[0-9.]{1,32})[ \t]{0,16}\)
  | \) | \]
  | [^\\()\[\]:]+ | :
    """,
    re.VERBOSE,
)
_BREAK = re.compile(r"\bBREAK\b")


@dataclass(frozen=True, slots=True)
class Piece:
    """Text with one weight, a dimensionless factor. `is_break`: here the next chunk begins; it has no text."""

    text: str
    weight: float = 1.0
    is_break: bool = False


BREAK = Piece("", is_break=True)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens of one run of the text encoder, without begin, end and padding, each with its weight."""

    ids: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()

    @property
    def is_weighted(self) -> bool:
        return any(weight != 1.0 for weight in self.weights)


def parse_prompt(text: str) -> list[Piece]:
    """Pieces in the order of the text, neighbours of one weight joined; any text is a prompt.

    Text without syntax is one piece of weight 1, unchanged.
    """
    parts: list[str | None] = []  # None: BREAK
    weights: list[float] = []
    opened: dict[str, list[int | None]] = {"(": [], "[": []}

    def close(bracket: str, factor: float) -> None:
        start = opened[bracket].pop()
        for index in range(len(parts) if start is None else start, len(parts)):
            weights[index] *= factor

    def add(part: str | None) -> None:
        parts.append(part)
        weights.append(1.0)

    for match in _TOKEN.finditer(text):
        token = match.group()
        if token[0] == "\\":
            add(token[1:])
        elif token in opened:
            # Every piece is multiplied once per bracket around it, so the depth bounds the work.
            opened[token].append(len(parts) if len(opened[token]) < MAX_DEPTH else None)
        elif match["weight"] is not None and opened["("]:
            factor = _number(match["weight"])
            if factor is None:
                add(token[:-1])
            close("(", BRACKET if factor is None else factor)
        elif token == ")" and opened["("]:
            close("(", BRACKET)
        elif token == "]" and opened["["]:
            close("[", 1 / BRACKET)
        else:
            _add_text(token, add)
    for bracket, factor in (("(", BRACKET), ("[", 1 / BRACKET)):
        while opened[bracket]:
            close(bracket, factor)
    return _join(parts, weights)


def plain_text(text: str) -> str:
    """The words of a prompt without its syntax."""
    return "".join(" " if piece.is_break else piece.text for piece in parse_prompt(text)).strip()


def fill_chunks(pieces: Iterable[Piece], tokenize: Callable[[str], list[int]], room: int) -> list[Chunk]:
    """Distribute the tokens of all pieces over chunks of at most `room` tokens; at least one chunk.

    Args:
        tokenize: text -> token ids, without begin and end.
    """
    chunks: list[Chunk] = []
    ids: list[int] = []
    weights: list[float] = []

    def finish() -> None:
        chunks.append(Chunk(tuple(ids), tuple(weights)))
        ids.clear()
        weights.clear()

    for piece in pieces:
        if piece.is_break:
            finish()
            continue
        for token in tokenize(piece.text):
            if len(ids) == room:
                finish()
            ids.append(token)
            weights.append(piece.weight)
    if ids or not chunks:
        finish()
    return chunks


def _add_text(text: str, add: Callable[[str | None], None]) -> None:
    words = _BREAK.split(text)
    for number, part in enumerate(words):
        if number:
            add(None)
            part = part.lstrip()
        add(part.rstrip() if number < len(words) - 1 else part)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return max(-MAX_WEIGHT, min(MAX_WEIGHT, number)) if math.isfinite(number) else None


def _join(parts: list[str | None], weights: list[float]) -> list[Piece]:
    pieces: list[Piece] = []
    run: list[str] = []
    weight = 1.0

    def finish() -> None:
        text = "".join(run)
        if text:
            pieces.append(Piece(text, weight))
        run.clear()

    for part, product in zip(parts, weights, strict=True):
        if part is None:
            finish()
            pieces.append(BREAK)
            continue
        bounded = max(-MAX_WEIGHT, min(MAX_WEIGHT, product))
        if run and bounded != weight:
            finish()
        run.append(part)
        weight = bounded
    finish()
    return pieces
