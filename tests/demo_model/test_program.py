"""The program that makes the model: captions keep their promises, computed parts say what the trained ones do."""

import random
from pathlib import Path

import pytest
import torch
from transformers import CLIPTokenizer

from benchmarks.demo_model.assembly import assemble
from benchmarks.demo_model.captions import CaptionWriter, Scene, canonical
from benchmarks.demo_model.codes import CELLS, CODE, Codes, to_cells
from benchmarks.demo_model.evaluation import CANDIDATES, wrong_scenes
from benchmarks.demo_model.scenes import compose
from benchmarks.demo_model.textcoder import GAIN, TextCoder, as_words
from benchmarks.demo_model.vocabulary import STYLES, Vocabulary, is_held_out

TOKENIZER = Path(__file__).parents[2] / "models_cache" / "demo" / "tokenizer"


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    """Red discs of growing size, named as real things so that style swaps are held out."""
    short = ["fox", "rocket", "pizza", "panda", "dog", "red heart", "house", "moon"]
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    discs = [((x - 32) ** 2 + (y - 32) ** 2 < (8 + 3 * i) ** 2).to(torch.uint8) for i in range(len(short))]
    art = torch.stack([torch.stack([disc * 255, disc * 0, disc * 0, disc * 255]) for disc in discs])
    hues = torch.zeros(len(STYLES), len(short))
    return Vocabulary(short, short, [[] for _ in short], art.expand(len(STYLES), -1, -1, -1, -1), hues)


def test_captions_never_hold_what_is_held_out(vocabulary: Vocabulary) -> None:
    short, writer = vocabulary.short, CaptionWriter(vocabulary, seed=4)
    unseen = set(vocabulary.unseen_styles())
    seen: set[str] = set()
    for asked in (writer.draw() for _ in range(3000)):
        scene = asked.scene
        if not asked.has_meaning:
            continue
        assert (scene.style, scene.thing) not in unseen
        if scene.second is not None:
            seen.add("pair")
            assert not is_held_out("pair", short[scene.thing], short[scene.second])
        elif scene.background != "white":
            seen.add("background")
            assert not is_held_out("bg", short[scene.thing], scene.background)
        if scene.hue:
            seen.add("hue")
            assert not is_held_out("hue", short[scene.thing], scene.hue)
    assert seen == {"pair", "background", "hue"}


def test_a_scene_is_drawn_as_its_caption_says(vocabulary: Vocabulary) -> None:
    scene = Scene(1, 4, hue="green", background="blue")
    assert canonical(vocabulary, scene) == "green dog, flat style, blue background"
    [picture] = compose(vocabulary, [scene])
    red, green, blue = picture[:, 32, 32]
    assert green > max(red, blue)
    red, green, blue = picture[:, 2, 2]
    assert blue > max(red, green)
    [pair] = compose(vocabulary, [Scene(0, 4, second=5)])
    assert pair[:, 32, 32].mean() > 0.9, "between two things is background"
    assert pair[0, 32, 16] > 0.9 > 0 > pair[1, 32, 16]


def test_wrong_captions_are_nineteen_others(vocabulary: Vocabulary) -> None:
    right = Scene(0, 2, background="red")
    wrong = wrong_scenes(vocabulary, right, random.Random(1))
    assert len({*wrong, right}) == CANDIDATES


def test_cells_hold_the_latents_of_their_place() -> None:
    latents = torch.arange(4 * 16 * 16).float().view(1, 4, 16, 16)
    cells = to_cells(latents)
    for cell in range(CELLS):
        y, x = cell // 4 * 4, cell % 4 * 4
        assert sorted(cells[0, cell].tolist()) == sorted(latents[0, :, y : y + 4, x : x + 4].flatten().tolist())


def test_the_assembled_encoder_finds_the_codes_of_the_trained_one() -> None:
    """Padding, causal masks and fixed marks cost nothing: at every memory place stands the trained code."""
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    coder = TextCoder(tokenizer)
    basis, _ = torch.linalg.qr(torch.randn(1024, CODE, generator=torch.Generator().manual_seed(2)))
    captions = ["dog", "a red car, flat style, blue background", ""]
    ids, is_word = as_words(tokenizer, captions)
    with torch.no_grad():
        wanted = coder(ids, is_word, torch.full((3,), coder.end))
        encoder = assemble(coder, Codes(torch.zeros(1024), basis, torch.ones(CODE)), tokenizer)
        padded = tokenizer(captions, padding="max_length", max_length=32, return_tensors="pt").input_ids
        answer = encoder(padded, output_hidden_states=True)
    found = answer.hidden_states[2][:, CELLS:, CELLS : CELLS + CODE] / GAIN
    assert (found - wanted[:, None]).abs().max() < 1e-2 * wanted.abs().max()
    states = answer.last_hidden_state
    places = states[:, CELLS:, :CELLS]
    assert (places.argmax(-1) == torch.arange(CELLS)).all()
    assert states[:, 1:CELLS, CELLS : CELLS + CODE].std() < 0.3, "words are hushed"


def test_two_pictures_of_a_scene_differ_and_stay_on_the_page(vocabulary: Vocabulary) -> None:
    torch.manual_seed(3)
    pictures = compose(vocabulary, [Scene(0, 4)] * 20 + [Scene(0, 4, background="blue")] * 20, varied=True)
    assert pictures.min() >= -1
    assert pictures.max() <= 1
    plain, blue = pictures[:20], pictures[20:]
    assert (plain[:, :, :2].amin((1, 2, 3)) > 0.99).all(), "white stays white"
    assert (blue[:, 2, 0, 0] > blue[:, 0, 0, 0] + 0.5).all(), "blue stays blue"
    assert blue[:, 2, 0, 0].std() > 0.01
    widths = (plain[:, 1] < 0).any(1).sum(1)
    assert widths.max() > widths.min()
    assert len({tuple(picture[:, 32, 32].tolist()) for picture in plain}) == 20


def test_scenes_are_composed_where_the_art_lies(vocabulary: Vocabulary) -> None:
    """Nothing of it stays on the CPU: a GPU would not wait for pictures."""
    scenes = [Scene(0, 1), Scene(1, 2, second=3), Scene(2, 4, hue="green", background="blue")]
    for varied in (False, True):
        assert compose(vocabulary.to(torch.device("meta")), scenes, varied=varied).device.type == "meta"
