"""How LoRAs will get on with each other, from what their files hold: where they pull the same weights, who drowns whom.

    measured = measure([path_a, path_b], read_base_shapes(folder))          # change_sizes.py: once per pair of files
    meet([Weights(0.8), Weights(0.6)], measured.changes, measured.products)  # at every move of a slider

A weight only scales a change, so moving one needs no file and no matrix. No torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from typing import NamedTuple

from visionsuit.engine.lora_names import Component

#: A module of the base model.
Layer = tuple[Component, str]

#: Cosines from which two changes count as much the same thing (or its opposite), and as partly so.
ALIKE, SIMILAR = 0.5, 0.15
#: How many times as large one change is when the other is hardly seen any more.
DROWNS = 4.0
#: Share of the smaller change in common layers below which two LoRAs are apart.
APART = 0.05
_WORST = 5


class Weights(NamedTuple):
    """What a mix gives a LoRA; the text encoders follow the denoiser if nothing is said of them."""

    denoiser: float
    text_encoder: float | None = None

    def of(self, component: Component) -> float:
        is_text = component.startswith("text_encoder")
        return self.text_encoder if is_text and self.text_encoder is not None else self.denoiser


@dataclass(frozen=True, slots=True)
class Change:
    """What a file does at weight 1: the squared size (Frobenius) of its change to each layer.

    `is_partial`: it does more than is counted, something that depends on the base model's weights.
    """

    squares: Mapping[Layer, float]
    is_partial: bool = False

    def size(self, weights: Weights) -> float:
        return sum(weights.of(layer[0]) ** 2 * square for layer, square in self.squares.items()) ** 0.5


#: Sums of the elementwise products of two changes, by the layers that both have.
Products = Mapping[Layer, float]


class Verdict(StrEnum):
    """`apart`: no layers in common worth the name. `calm`: common layers, different directions. `similar`, `alike`:
    the same direction in part, or mostly. `opposed`: one takes away what the other adds. `drowned`: one is so much
    larger that the other is hardly seen."""

    APART = "apart"
    CALM = "calm"
    SIMILAR = "similar"
    ALIKE = "alike"
    OPPOSED = "opposed"
    DROWNED = "drowned"


@dataclass(frozen=True, slots=True)
class Meeting:
    """Two LoRAs of a mix, by their numbers in it.

    Attributes:
        overlap: cosine between what they do to the layers both change, in -1..1; 0 is no conflict, 1 the same thing
            twice, -1 one takes away what the other adds.
        balance: size of the first's change / the second's, weights included.
        shared: how much of the smaller change lies in layers both change, in 0..1.
        worst: layers with the largest overlap either way, and what it is there; at most five.
    """

    first: int
    second: int
    overlap: float
    balance: float
    shared: float
    worst: tuple[tuple[str, float], ...]

    @property
    def verdict(self) -> Verdict:
        if self.shared < APART:
            return Verdict.APART
        if self.balance >= DROWNS or self.balance * DROWNS <= 1:
            return Verdict.DROWNED
        if self.overlap <= -SIMILAR:
            return Verdict.OPPOSED
        if self.overlap >= ALIKE:
            return Verdict.ALIKE
        return Verdict.SIMILAR if self.overlap >= SIMILAR else Verdict.CALM


def meet(
    weights: Sequence[Weights], changes: Sequence[Change], products: Mapping[tuple[int, int], Products]
) -> list[Meeting]:
    """Every two LoRAs of a mix that do something, the worst conflict first.

    Args:
        weights, changes: one a LoRA.
        products: by the numbers of two, the smaller one first; a pair that is missing is left out.
    """
    heard = [number for number, change in enumerate(changes) if change.size(weights[number]) > 0]
    met = [
        _meet(pair, (weights[pair[0]], weights[pair[1]]), (changes[pair[0]], changes[pair[1]]), products[pair])
        for pair in combinations(heard, 2)
        if pair in products
    ]
    return sorted(met, key=_harm, reverse=True)


def say(meeting: Meeting, first: str, second: str) -> str:
    """One plain sentence about two LoRAs of these titles."""
    same = f"{abs(meeting.overlap):.0%}"
    loud, quiet = (first, second) if meeting.balance >= 1 else (second, first)
    times = meeting.balance if meeting.balance >= 1 else 1 / meeting.balance
    size = f"{times:.0f} times" if times < 100 else "over a hundred times"
    match meeting.verdict:
        case Verdict.APART:
            return f"“{first}” and “{second}” change different layers and leave each other alone."
        case Verdict.DROWNED:
            return f"“{loud}” drowns “{quiet}”: its change is {size} as large."
        case Verdict.OPPOSED:
            return f"“{first}” and “{second}” work against each other ({same} opposed): each takes from the other."
        case Verdict.ALIKE:
            return f"“{first}” and “{second}” do much the same ({same} overlap): together they may be too much."
        case Verdict.SIMILAR:
            return f"“{first}” and “{second}” pull partly in the same direction ({same} overlap)."
        case Verdict.CALM:
            return f"“{first}” and “{second}” share layers but hardly get in each other's way."


def _meet(
    pair: tuple[int, int], weights: tuple[Weights, Weights], changes: tuple[Change, Change], products: Products
) -> Meeting:
    one, two = changes

    def factor(layer: Layer) -> float:
        return weights[0].of(layer[0]) * weights[1].of(layer[0])

    mine, theirs = (
        sum(weight.of(layer[0]) ** 2 * change.squares[layer] for layer in products)
        for weight, change in zip(weights, changes, strict=True)
    )
    cosines = {
        layer: _ratio(product * factor(layer), abs(factor(layer)) * (one.squares[layer] * two.squares[layer]) ** 0.5)
        for layer, product in products.items()
    }
    worst = sorted(cosines.items(), key=lambda entry: -abs(entry[1]))[:_WORST]
    sizes = one.size(weights[0]), two.size(weights[1])
    smaller = (mine, sizes[0] ** 2) if sizes[0] < sizes[1] else (theirs, sizes[1] ** 2)
    total = sum(factor(layer) * product for layer, product in products.items())
    return Meeting(
        *pair,
        overlap=_ratio(total, (mine * theirs) ** 0.5),
        balance=_ratio(*sizes),
        shared=min(1.0, _ratio(*smaller)),
        worst=tuple((f"{component}.{name}", cosine) for (component, name), cosine in worst),
    )


def _harm(meeting: Meeting) -> float:
    drowned = 1.0 if meeting.verdict is Verdict.DROWNED else 0.0
    return drowned + abs(meeting.overlap) * meeting.shared


def _ratio(dividend: float, divisor: float) -> float:
    return dividend / divisor if divisor > 0 else 0.0
