"""How well the shipped folder draws what it is asked for: the judge ranks the right caption among twenty."""

import json
import random
import time
from dataclasses import fields, replace
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from benchmarks.demo_model.captions import CaptionWriter, Scene, canonical
from benchmarks.demo_model.export import STEPS, load_pipeline, render, sheet, to_array
from benchmarks.demo_model.judge import STYLE_NAMES, Judge, Verdict, load_judge
from benchmarks.demo_model.scenes import compose
from benchmarks.demo_model.vocabulary import BACKGROUNDS, HELD_OUT_STYLES, HUES, STYLES, Vocabulary, is_held_out

CANDIDATES = 20
#: Of the nineteen wrong captions, how many differ from the right one in one thing alone.
NEAR = 4
Figures = dict[str, float]


def evaluate(
    model: Path, loras: Path, work: Path, vocabulary: Vocabulary, out: Path, asked: int = 200
) -> dict[str, Figures]:
    """All figures, also kept in `<out>/evaluation.json`, and contact sheets beside it.

    `asked` training prompts, half as many unseen combinations, a fifth of them at few steps.

    Figures that are there already are not taken again: delete the file after the model has changed.
    """
    torch.manual_seed(0)
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "evaluation.json"
    figures: dict[str, Figures] = json.loads(kept.read_text()) if kept.exists() else {}
    judge, pipeline = load_judge(work, vocabulary), load_pipeline(model)
    if "seeds" not in figures:
        figures |= base_figures(judge, pipeline, vocabulary, out, asked)
        kept.write_text(json.dumps(figures, indent=2) + "\n")
    if not any(name.startswith("LoRA") for name in figures):
        figures |= lora_figures(judge, pipeline, loras, vocabulary, out)
        kept.write_text(json.dumps(figures, indent=2) + "\n")
    return figures


def base_figures(
    judge: Judge, pipeline: StableDiffusionPipeline, vocabulary: Vocabulary, out: Path, asked: int
) -> dict[str, Figures]:
    """Captions ranked: the judge's own limit, training prompts, unseen combinations, few steps; and seeds compared."""
    figures: dict[str, Figures] = {"judge on the artwork itself": _ceiling(judge, vocabulary)}
    known = training_scenes(vocabulary, asked)
    figures["training prompts"], _ = _ask(judge, pipeline, vocabulary, known, out / "training.png")
    by_kind = unseen_scenes(vocabulary, asked // 2)
    unseen = [(canonical(vocabulary, scene), scene) for kind in by_kind.values() for scene in kind]
    figures["unseen combinations"], pictures = _ask(judge, pipeline, vocabulary, unseen, out / "unseen.png")
    start = 0
    for kind, members in ((kind, members) for kind, members in by_kind.items() if members):
        figures[f"unseen: {kind}"] = _ranked(judge, vocabulary, members, pictures[start : start + len(members)])
        start += len(members)
    figures["few steps"] = _few_steps(judge, pipeline, vocabulary, known[: asked // 5])
    figures["seeds"] = _diversity(judge, pipeline, vocabulary)
    return figures


def training_scenes(vocabulary: Vocabulary, count: int) -> list[tuple[str, Scene]]:
    """Captions as training draws them, with aliases and filler, and their scenes."""
    writer = CaptionWriter(vocabulary, seed=77)
    drawn = (writer.draw() for _ in range(count * 2))
    return [(asked.caption, asked.scene) for asked in drawn if asked.has_meaning][:count]


def unseen_scenes(vocabulary: Vocabulary, count: int) -> dict[str, list[Scene]]:
    """Combinations whose captions training never held, as many as there are."""
    dice, short = random.Random(5), vocabulary.short
    styles = range(len(STYLES))
    recoloured = [
        Scene(style, thing, hue=hue)
        for style in styles
        for thing in vocabulary.things_of(style)
        for hue in HUES
        if is_held_out("hue", short[thing], hue) and vocabulary.takes_colour(thing, style)
    ]
    placed = [
        Scene(style, thing, background=name)
        for style in styles
        for thing in vocabulary.things_of(style)
        for name in BACKGROUNDS
        if name != "white" and is_held_out("bg", short[thing], name)
    ]
    pairs = [
        Scene(style, first, second)
        for style in styles
        for first in vocabulary.things_of(style)
        for second in vocabulary.things_of(style)
        if first != second and is_held_out("pair", short[first], short[second])
    ]
    swapped = [Scene(style, thing) for style, thing in vocabulary.unseen_styles()]
    found = {"colour and thing": recoloured, "thing and background": placed, "two things": pairs}
    some = {kind: dice.sample(scenes, min(len(scenes), count * 28 // 100)) for kind, scenes in found.items()}
    return {**some, "style swap": swapped[: count * 16 // 100]}


def wrong_scenes(vocabulary: Vocabulary, right: Scene, dice: random.Random) -> list[Scene]:
    """Nineteen others: four that differ in one thing alone (style, thing, background, colour or second thing), the rest
    of the same kind as the right one."""
    found: list[Scene] = []
    wanted = CANDIDATES - 1
    while len(found) < wanted:
        thing = dice.randrange(len(vocabulary))
        near = [
            replace(right, thing=thing),
            replace(right, style=dice.randrange(len(STYLES))),
            replace(right, background=dice.choice(list(BACKGROUNDS))),
        ]
        if right.hue:
            near.append(replace(right, hue=dice.choice(list(HUES))))
        if right.second is not None:
            near.append(replace(right, second=thing))
        if len(found) < NEAR:
            other = dice.choice(near)
        else:
            other = Scene(
                style=dice.randrange(len(STYLES)),
                thing=thing,
                second=None if right.second is None else dice.randrange(len(vocabulary)),
                hue=None if right.hue is None else dice.choice(list(HUES)),
                background=dice.choice(list(BACKGROUNDS)) if right.background != "white" else "white",
            )
        if other != right and other not in found:
            found.append(other)
    return found


@torch.no_grad()
def _look(judge: Judge, pictures: torch.Tensor) -> Verdict:
    parts = [judge(part) for part in pictures.split(64)]

    def joined(name: str) -> torch.Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    return Verdict(*(joined(field.name) for field in fields(Verdict)))


def _ranked(judge: Judge, vocabulary: Vocabulary, scenes: list[Scene], pictures: torch.Tensor) -> Figures:
    """Shares of right captions that come first, or among the first five; by style too."""
    dice, verdict = random.Random(9), _look(judge, pictures)
    ranks: list[int] = []
    for row, scene in enumerate(scenes):
        own = verdict.fit(row, scene)
        ranks.append(sum(verdict.fit(row, other) > own for other in wrong_scenes(vocabulary, scene, dice)))
    named = sum(verdict.things[row].argmax().item() in (s.thing, s.second) for row, s in enumerate(scenes))
    figures = {"pictures": len(ranks), **_tops(ranks), "right thing among all": round(named / len(ranks), 3)}
    for number, style in enumerate(STYLES):
        mine = [rank for rank, scene in zip(ranks, scenes, strict=True) if scene.style == number]
        figures |= {f"{style.artwork} {key}": value for key, value in _tops(mine).items()}
    return figures


def _tops(ranks: list[int]) -> Figures:
    if not ranks:
        return {}
    return {f"top-{top}": round(sum(rank < top for rank in ranks) / len(ranks), 3) for top in (1, 5)}


def _ceiling(judge: Judge, vocabulary: Vocabulary) -> Figures:
    """What the judge would say of perfect pictures."""
    scenes = [scene for _, scene in training_scenes(vocabulary, 200)]
    return _ranked(judge, vocabulary, scenes, compose(vocabulary, scenes))


def _ask(
    judge: Judge, pipeline: StableDiffusionPipeline, vocabulary: Vocabulary, asked: list[tuple[str, Scene]], path: Path
) -> tuple[Figures, torch.Tensor]:
    """Figures, and the pictures [n, 3, 64, 64]; a sheet of the first 128."""
    start = time.perf_counter()
    pictures = render(pipeline, [caption for caption, _ in asked], list(range(len(asked))))
    seconds = (time.perf_counter() - start) / len(asked)
    drawn = to_array(pictures)
    figures = _ranked(judge, vocabulary, [scene for _, scene in asked], drawn)
    sheet([pictures[row : row + 16] for row in range(0, min(128, len(pictures)), 16)], path)
    return figures | {"seconds a picture": round(seconds, 2)}, drawn


def _few_steps(
    judge: Judge, pipeline: StableDiffusionPipeline, vocabulary: Vocabulary, asked: list[tuple[str, Scene]]
) -> Figures:
    figures: Figures = {}
    for steps in (4, 8, STEPS):
        pictures = render(pipeline, [caption for caption, _ in asked], list(range(len(asked))), steps)
        ranked = _ranked(judge, vocabulary, [scene for _, scene in asked], to_array(pictures))
        figures[f"{steps} steps top-1"] = ranked["top-1"]
    return figures


def _diversity(judge: Judge, pipeline: StableDiffusionPipeline, vocabulary: Vocabulary) -> Figures:
    """Mean difference of two pictures, pixels in 0..255 and the judge's features: other seeds, and other prompts."""
    names = vocabulary.short[:60:5]
    pictures = to_array(render(pipeline, [name for name in names for _ in range(4)], list(range(len(names) * 4))))
    features = torch.nn.functional.normalize(_look(judge, pictures).features, dim=1)
    flat = pictures.flatten(1) * 127.5
    same = torch.block_diag(*[torch.ones(4, 4)] * len(names)).bool()
    pixels = torch.cdist(flat, flat) / flat.shape[1] ** 0.5
    apart = 1 - features @ features.T
    others = ~torch.eye(len(flat), dtype=torch.bool)
    return {
        "pixels, same prompt": round(pixels[same & others].mean().item(), 1),
        "pixels, other prompt": round(pixels[~same].mean().item(), 1),
        "features, same prompt": round(apart[same & others].mean().item(), 3),
        "features, other prompt": round(apart[~same].mean().item(), 3),
    }


def lora_figures(
    judge: Judge, pipeline: StableDiffusionPipeline, loras: Path, vocabulary: Vocabulary, out: Path
) -> dict[str, Figures]:
    """Share of pictures that the judge's style classifier gives to the LoRA's style; for mixes, to either."""
    names = [name for name in HELD_OUT_STYLES if (loras / name / "card.json").exists()]
    for name in names:
        pipeline.load_lora_weights(loras / name, weight_name=f"{name}.safetensors", adapter_name=name)
    things = vocabulary.short[::9]
    rows: list[list[Image.Image]] = []
    figures: dict[str, Figures] = {}

    def share(mix: dict[str, float]) -> Figures:
        pipeline.set_adapters(list(mix), list(mix.values()))
        triggers = ", ".join(HELD_OUT_STYLES[name].trigger for name in mix)
        pictures = render(pipeline, [f"{thing}, {triggers}" for thing in things], list(range(len(things))))
        rows.append(pictures[:14])
        verdict = _look(judge, to_array(pictures))
        wanted = torch.tensor([STYLE_NAMES.index(name) for name in mix])
        hit = (verdict.styles.argmax(1)[:, None] == wanted).any(1).float().mean().item()
        named = [vocabulary.short[int(found)] for found in verdict.things.argmax(1)]
        right = sum(found == thing for found, thing in zip(named, things, strict=True)) / len(things)
        return {"style": round(hit, 3), "right thing": round(right, 3)}

    for name in names:
        parts = {weight: share({name: weight}) for weight in (0.0, 0.5, 1.0)}
        figures[f"LoRA {name}"] = {f"{key} at {weight}": part[key] for weight, part in parts.items() for key in part}
    for first, second in zip(names, names[1:] + names[:1], strict=True) if len(names) > 1 else ():
        figures[f"LoRA {first} + {second}, 0.6 each"] = share({first: 0.6, second: 0.6})
    if names:
        sheet(rows, out / "loras.png")
        pipeline.unload_lora_weights()
    return figures
