"""Prompts with choices and LoRA tags in them -> the prompt of one picture. Text and numbers only.

    {red|green}            one of them; options may be empty, and hold further choices
    {3::red|green}         three times as likely
    {2$$red|green|blue}    two different ones, joined by ", "
    {1-2$$ and $$red|blue} one or two, joined by " and "
    __animal__             a line of the wildcard list `animal`, in which all this may stand again
    \\{ \\} \\| \\__           the character itself
    <lora:name:0.8>        mixes a LoRA in
    <lora:name:0.8:0.5>    with a weight for the text encoder and one for the denoiser, in AUTOMATIC1111's order

What does not fit this is text: a brace that nothing closes, braces without a choice.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from random import Random

from visionsuit.core.errors import InvalidInput

#: Braces inside so many others are text.
MAX_DEPTH = 10
#: Wildcards whose lines name wildcards, whose lines name ...
MAX_WILDCARD_DEPTH = 6
MAX_WILDCARDS = 500
#: Of one prompt after all choices.
MAX_CHARACTERS = 100_000
#: Of all choices of one prompt together: options times how many of them are picked.
MAX_LOOKS = 20_000

WILDCARD_NAME = re.compile(r"[A-Za-z0-9](?:[-_]?[A-Za-z0-9]){0,63}")
_TOKEN = re.compile(r"\\\\|\\[{}|]|\\__|[{}|]|__(?P<name>" + WILDCARD_NAME.pattern + r")__|[^\\{}|_]+|.", re.DOTALL)
#: Without one of these, all of a text is text.
_MARKS = ("{", "\\", "__")
_WEIGHT = re.compile(r"\s*([0-9]{1,6}(?:\.[0-9]{0,6})?|\.[0-9]{1,6})\s*::")
_PICK = re.compile(r"\s*([0-9]{1,2})(?:-([0-9]{1,2}))?\$\$(?:([^$]{0,40})\$\$)?")
_TAG = re.compile(r"<(?:lora|lyco):([^<>\n]{1,300})>", re.IGNORECASE)
_SEPARATOR = ", "


class UnknownWildcard(InvalidInput):
    code = "unknown_wildcard"


class WildcardsTooDeep(InvalidInput):
    code = "wildcards_too_deep"


class TooManyOptions(InvalidInput):
    code = "too_many_options"


class BadLoraTag(InvalidInput):
    code = "bad_lora_tag"


@dataclass(frozen=True, slots=True)
class Wildcard:
    name: str


@dataclass(frozen=True, slots=True)
class Option:
    nodes: tuple["Node", ...]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Choice:
    """`least` to `most` different options, joined by `separator`."""

    options: tuple[Option, ...]
    least: int = 1
    most: int = 1
    separator: str = _SEPARATOR


Node = str | Wildcard | Choice


@dataclass(frozen=True, slots=True)
class LoraTag:
    """A LoRA named in a prompt. `text_encoder_weight` None: the same as `weight`, which is the denoiser's.

    Attributes:
        text: the whole tag, as it was written.
    """

    name: str
    weight: float
    text_encoder_weight: float | None
    text: str


@dataclass(slots=True)
class _Frame:
    """An open brace: the options so far, the last of them still growing."""

    options: list[list[Node]] = field(default_factory=lambda: [[]])


def parse_template(text: str) -> tuple[Node, ...]:
    """Any text is a template; one without choices and escapes is itself."""
    if not any(mark in text for mark in _MARKS):
        return (text,) if text else ()
    frames = [_Frame()]
    shut = 0
    for match in _TOKEN.finditer(text):
        token, nodes = match.group(), frames[-1].options[-1]
        if token == "{" and len(frames) > MAX_DEPTH:
            shut += 1
            nodes.append(token)
        elif token == "{":
            frames.append(_Frame())
        elif token == "}" and shut:
            shut -= 1
            nodes.append(token)
        elif token == "}" and len(frames) > 1:
            closed = frames.pop()
            frames[-1].options[-1].extend(_choice(closed))
        elif token == "|" and len(frames) > 1 and not shut:
            frames[-1].options.append([])
        elif match["name"]:
            nodes.append(Wildcard(match["name"]))
        else:
            # `\\` stays two characters: whether it escapes a bracket is the next reader's business.
            nodes.append(token[1:] if token[0] == "\\" and token not in ("\\", "\\\\") else token)
    while len(frames) > 1:
        lost = frames.pop()
        frames[-1].options[-1].extend(["{", *_as_text(lost)])
    return _joined(frames[0].options[0])


def expand(template: str | tuple[Node, ...], random: Random, list_lines: Callable[[str], Sequence[str] | None]) -> str:
    """The template with every choice made. The same state of `random` makes the same choices.

    Args:
        list_lines: wildcard name -> its lines; None or empty: there is no such list.

    Raises:
        UnknownWildcard, WildcardsTooDeep, TooManyOptions
    """
    nodes = parse_template(template) if isinstance(template, str) else template
    return _Expansion(random, list_lines).expand(nodes, 0)


@lru_cache(maxsize=1024)
def _parse_line(line: str) -> tuple[Node, ...]:
    return parse_template(line)


def has_choices(template: str) -> bool:
    return any(not isinstance(node, str) for node in parse_template(template))


def take_lora_tags(text: str) -> tuple[str, list[LoraTag]]:
    """The text without its LoRA tags, and these in their order.

    Raises:
        BadLoraTag: a weight that is no number.
    """
    tags = [_read_tag(match) for match in _TAG.finditer(text)]
    return (_TAG.sub("", text).strip() if tags else text), tags


@dataclass(slots=True)
class _Expansion:
    random: Random
    list_lines: Callable[[str], Sequence[str] | None]
    wildcards: int = 0
    characters: int = 0
    looks: int = 0

    def expand(self, nodes: tuple[Node, ...], depth: int) -> str:
        return "".join(self._expand_node(node, depth) for node in nodes)

    def _expand_node(self, node: Node, depth: int) -> str:
        if isinstance(node, str):
            self.characters += len(node)
            if self.characters > MAX_CHARACTERS:
                raise WildcardsTooDeep(
                    f"The prompt grows beyond {MAX_CHARACTERS} characters when its choices are made."
                )
            return node
        if isinstance(node, Wildcard):
            return self._expand_wildcard(node.name, depth)
        return node.separator.join(self.expand(option.nodes, depth) for option in self._pick(node))

    def _expand_wildcard(self, name: str, depth: int) -> str:
        self.wildcards += 1
        if depth >= MAX_WILDCARD_DEPTH or self.wildcards > MAX_WILDCARDS:
            raise WildcardsTooDeep(
                f"The wildcard __{name}__ leads to too many others: {MAX_WILDCARD_DEPTH} inside each other and "
                f"{MAX_WILDCARDS} in one prompt are the most."
            )
        lines = self.list_lines(name)
        if not lines:
            raise UnknownWildcard(f"There is no wildcard list “{name}”, which __{name}__ asks for.")
        # `random.random` alone keeps its promise over versions of Python.
        line = lines[int(self.random.random() * len(lines))]
        return self.expand(_parse_line(line), depth + 1)

    def _pick(self, choice: Choice) -> Iterator[Option]:
        left = list(choice.options)
        count = choice.least
        if choice.most > choice.least:
            count += int(self.random.random() * (choice.most - choice.least + 1))
        count = min(count, len(left))
        self.looks += count * len(left)
        if self.looks > MAX_LOOKS:
            raise TooManyOptions(
                f"The choices of this prompt are too many: {count} of {len(left)} options are to be picked; over the "
                f"whole prompt, options times picks may come to {MAX_LOOKS}.",
                hint="Offer fewer options, or pick fewer of them.",
            )
        weights = [option.weight for option in left]
        for _ in range(count):
            index = self._draw(weights)
            del weights[index]
            yield left.pop(index)

    def _draw(self, weights: list[float]) -> int:
        ends = list(accumulate(weights))
        # All weights may be zero, and rounding may leave a rest.
        return min(bisect_right(ends, self.random.random() * ends[-1]), len(ends) - 1)


def _choice(frame: _Frame) -> list[Node]:
    frame.options[0] = list(_joined(frame.options[0]))
    head = frame.options[0][0] if frame.options[0] else ""
    pick = _PICK.match(head) if isinstance(head, str) else None
    if len(frame.options) == 1 and pick is None:
        return ["{", *_as_text(frame), "}"]
    if pick is None:
        return [Choice(tuple(_option(nodes) for nodes in frame.options))]
    assert isinstance(head, str)
    frame.options[0][0] = head[pick.end() :]
    least = int(pick[1])
    most = max(least, int(pick[2] or least))
    separator = _SEPARATOR if pick[3] is None else pick[3]
    return [Choice(tuple(_option(nodes) for nodes in frame.options), least, most, separator)]


def _option(nodes: list[Node]) -> Option:
    nodes = list(_joined(nodes))
    weight = _WEIGHT.match(nodes[0]) if nodes and isinstance(nodes[0], str) else None
    if weight is None:
        return Option(tuple(nodes))
    head = nodes[0]
    assert isinstance(head, str)
    return Option((head[weight.end() :], *nodes[1:]), float(weight[1]))


def _as_text(frame: _Frame) -> Iterator[Node]:
    for number, nodes in enumerate(frame.options):
        if number:
            yield "|"
        yield from nodes


def _joined(nodes: list[Node]) -> tuple[Node, ...]:
    """Neighbouring texts as one."""
    joined: list[Node] = []
    run: list[str] = []
    for node in nodes:
        if isinstance(node, str):
            run.append(node)
            continue
        if run:
            joined.append("".join(run))
            run = []
        joined.append(node)
    if run:
        joined.append("".join(run))
    return tuple(joined)


def _read_tag(match: re.Match[str]) -> LoraTag:
    name, *rest = (part.strip() for part in match[1].split(":"))
    named = dict(part.split("=", 1) for part in rest if "=" in part)
    placed = [part for part in rest if "=" not in part]
    tag = match[0]
    text_encoder = _tag_weight(named.get("te", placed[0] if placed else "1"), tag)
    denoiser = _tag_weight(named["unet"], tag) if "unet" in named else text_encoder
    if len(placed) > 1 and "unet" not in named:
        denoiser = _tag_weight(placed[1], tag)
    if not name:
        raise BadLoraTag(f"The tag {tag} names no LoRA.")
    return LoraTag(name, denoiser, None if text_encoder == denoiser else text_encoder, tag)


def _tag_weight(text: str, tag: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise BadLoraTag(
            f"The weight in the tag {tag} is no number.", hint="Write it as <lora:name:0.8> or <lora:name:0.8:0.5>."
        )
    return weight
