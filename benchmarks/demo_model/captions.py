"""Scenes to draw, and the many ways in which people would ask for them."""

import random
from dataclasses import dataclass, replace

from benchmarks.demo_model.vocabulary import BACKGROUNDS, HUES, STYLES, Vocabulary, is_held_out, plain, without_colours


@dataclass(frozen=True, slots=True)
class Scene:
    """One thing, or two side by side; indices into the vocabulary. `hue` recolours a single thing."""

    style: int
    thing: int
    second: int | None = None
    hue: str | None = None
    background: str = "white"


@dataclass(frozen=True, slots=True)
class Asked:
    """A caption and its scene. A caption of no known words has no meaning: the scene is then any."""

    caption: str
    scene: Scene
    has_meaning: bool = True


def _phrases(text: str) -> list[str]:
    return text.split("|")


_BEFORE = _phrases(
    "a|the|one|cute|small|big|beautiful|nice|simple|little|a cute|a small|a picture of a|a picture of|picture of a|"
    "an icon of a|icon of|drawing of a|a drawing of|a photo of a|illustration of a|an illustration of|sticker of a|"
    "emoji of|emoji|a beautiful|a happy|a big|my|lovely|some"
)
_AFTER = _phrases(
    "emoji|icon|sticker|picture|illustration|drawing|high quality|on its own|centered|art|detailed|cute|clean|simple"
)
_NOISE = _phrases(
    "masterpiece|best quality|high quality|highly detailed|8k|4k|hd|portrait|cinematic|lighting|soft lighting|"
    "sharp focus|ugly|blurry|low quality|worst quality|bad anatomy|deformed|watermark|text|trending|award winning|"
    "in the park|in a field|at night|in the morning|sitting|standing|looking at you|studio|vector|logo|digital art|"
    "concept art|realistic|colorful|vivid colors|minimal|white border|cropped|out of focus|noise|jpeg artifacts|"
    "signature|line art style|bold line style|outlined style|night style|gradient"
)
#: Words that the tokenizer shall know whole.
FILLER = (*_BEFORE, *_AFTER, *_NOISE)


class CaptionWriter:
    """Draws scenes and captions for training; never one of the held-out combinations."""

    def __init__(self, vocabulary: Vocabulary, seed: int) -> None:
        self._vocabulary = vocabulary
        self._random = random.Random(seed)
        self._things = [vocabulary.things_of(style) for style in range(len(STYLES))]
        self._backgrounds = list(BACKGROUNDS)[1:]

    def draw(self) -> Asked:
        """4 % without meaning, 20 % two things, 20 % recoloured, the rest plain; 30 % on a coloured background."""
        dice = self._random
        style = dice.choices(range(len(STYLES)), [style.share for style in STYLES])[0]
        thing, kind = dice.choice(self._things[style]), dice.random()
        scene = Scene(style, thing)
        if dice.random() < 0.3:
            scene = replace(scene, background=dice.choice(self._backgrounds))
        if kind < 0.04:
            return Asked(self._meaningless(), scene, has_meaning=False)
        if kind < 0.24:
            scene, words = self._pair(scene)
        elif kind < 0.44 and self._vocabulary.takes_colour(thing, style):
            scene, words = self._recoloured(scene)
        else:
            while is_held_out("bg", self._vocabulary.short[thing], scene.background) and scene.background != "white":
                scene = replace(scene, background=dice.choice(self._backgrounds))
            words = self._dressed(self._name(thing))
        caption = self._finished(words, scene)
        return Asked(self._littered(caption) if dice.random() < 0.12 else caption, scene)

    def _pair(self, scene: Scene) -> tuple[Scene, str]:
        dice, short = self._random, self._vocabulary.short
        second = dice.choice(self._things[scene.style])
        while is_held_out("pair", short[scene.thing], short[second]):
            second = dice.choice(self._things[scene.style])
        first = self._name(scene.thing)
        if dice.random() < 0.3:
            first = self._dressed(first)
        joint = dice.choice(("and", "and", "and", "with", "next to", "and a"))
        return replace(scene, second=second), f"{first} {joint} {self._name(second)}"

    def _recoloured(self, scene: Scene) -> tuple[Scene, str]:
        dice, short = self._random, self._vocabulary.short[scene.thing]
        hue = dice.choice(list(HUES))
        while is_held_out("hue", short, hue):
            hue = dice.choice(list(HUES))
        if dice.random() < 0.6 or is_held_out("bg", short, scene.background):
            scene = replace(scene, background="white")
        return replace(scene, hue=hue), self._dressed(f"{hue} {without_colours(self._name(scene.thing))}")

    def _name(self, thing: int) -> str:
        words, dice = self._vocabulary, self._random.random()
        if dice < 0.75:
            return words.short[thing]
        return (
            words.full[thing] if dice < 0.9 or not words.aliases[thing] else self._random.choice(words.aliases[thing])
        )

    def _dressed(self, name: str) -> str:
        """With filler that changes nothing."""
        dice = self._random.random()
        if dice < 0.16:
            return f"{self._random.choice(_BEFORE)} {name}"
        return f"{name}{self._random.choice((' ', ', '))}{self._random.choice(_AFTER)}" if dice < 0.26 else name

    def _finished(self, caption: str, scene: Scene) -> str:
        """With words of style and background, in any order."""
        dice, tail = self._random, []
        unsaid = scene.style == _default_style(self._vocabulary, scene)
        if not unsaid or dice.random() < 0.5:
            words = dice.choice(STYLES[scene.style].words)
            if dice.random() < 0.1 and " " in words:
                caption = f"{words}, {caption}"
            else:
                tail.append(words)
        if scene.background != "white":
            name = scene.background
            forms = (*(f"{name} background",) * 4, f"on a {name} background", f"on {name}", f"on {name} background")
            tail.append(dice.choice(forms))
        if len(tail) == 2 and dice.random() < 0.3:
            tail.reverse()
        for words in tail:
            caption += (" " if words.startswith("on") and dice.random() < 0.6 else ", ") + words
        return caption

    def _littered(self, caption: str) -> str:
        if self._random.random() < 0.3:
            return f"{self._noise(self._random.randint(1, 2))}, {caption}"
        return f"{caption}, {self._noise(self._random.randint(1, 3))}"

    def _meaningless(self) -> str:
        """Nothing, or what negative prompts hold: shall lead nowhere."""
        kind = self._random.random()
        if kind < 0.4:
            return ""
        if kind < 0.82:
            return self._noise(self._random.randint(1, 6))
        return self._random.choice((*_AFTER, *BACKGROUNDS))

    def _noise(self, count: int) -> str:
        dice = self._random
        return ", ".join(dice.choice(_NOISE) if dice.random() < 0.7 else self._nonsense() for _ in range(count))

    def _nonsense(self) -> str:
        """A word that no tokenizer knows."""
        pick = self._random.choice
        return "".join(
            pick("bcdfghklmnprstvw") + pick("aeiou") + pick(("", "", "n", "r", "s", "t"))
            for _ in range(self._random.randint(1, 3))
        )


def _default_style(vocabulary: Vocabulary, scene: Scene) -> int:
    """What a caption without words of style means: the first style that knows the thing."""
    if scene.second is None and scene.thing not in vocabulary.things_of(0):
        return 1
    return 0


def canonical(vocabulary: Vocabulary, scene: Scene) -> str:
    """The plainest caption that says all of a scene: "red car, flat style, blue background"."""
    words = vocabulary.short[scene.thing]
    if scene.hue:
        words = f"{scene.hue} {without_colours(words)}"
    if scene.second is not None:
        words += f" and {vocabulary.short[scene.second]}"
    words += f", {STYLES[scene.style].words[0]}"
    return words if scene.background == "white" else f"{words}, {scene.background} background"


def tokenizer_texts(vocabulary: Vocabulary) -> list[str]:
    """Text from which the tokenizer learns; repeated so that every known word becomes one token."""
    writer = CaptionWriter(vocabulary, seed=0)
    texts = [writer.draw().caption for _ in range(12_000)]
    texts += [plain(name) for name in vocabulary.full] * 60 + [w for words in vocabulary.aliases for w in words] * 40
    return texts + [" ".join(words) for style in STYLES for words in [style.words]] * 50 + list(FILLER) * 20
