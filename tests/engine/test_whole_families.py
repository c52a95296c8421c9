"""Families of pipelines that are rendered whole: each paints what diffusers paints, and stops between two steps."""

import hashlib
import inspect
import json
import shutil
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch
from diffusers import DiffusionPipeline
from numpy.typing import NDArray
from safetensors.torch import save_file

from tests.engine.conftest import Renderer
from tests.engine.test_batching import furthest
from tests.engine.tiny_families import FAMILIES, make_tiny_family
from tests.engine.tiny_whole import make_tiny_lcm
from visionsuit.engine.base import Ability, EngineError, LoraRef, ModelUnloadable, Progress, RenderCancelled
from visionsuit.engine.catalog import BaseModelInfo, read_base_model
from visionsuit.engine.samplers import create_scheduler
from visionsuit.engine.whole_kinds import WHOLE

#: Of these others may stand in for the scheduler, which is not one that flows.
REPLACED = ("HunyuanDiT", "Kandinsky3", "PixArtAlpha", "PixArtSigma")
WITH_LORAS = [name for name in FAMILIES if WHOLE[f"{name}Pipeline"].loras]

Family = Callable[[str], BaseModelInfo]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    folder = tmp_path_factory.mktemp("families")

    @lru_cache
    def info(name: str) -> BaseModelInfo:
        return read_base_model(make_tiny_family(folder / name, name))

    return info


def paint(renderer: Renderer, info: BaseModelInfo, **changes: Any) -> NDArray[np.int16]:
    """As a person has it who chooses nothing but what `changes` say."""
    own = info.default
    chosen = {"sampler": own.sampler, "schedule": own.schedule, "guidance": own.guidance, "steps": 3, **changes}
    return Renderer(renderer.engine, {"own": info})("own", "a red cat", **chosen)[0]


def expected(
    info: BaseModelInfo,
    name: str,
    lora: LoraRef | None = None,
    added: Mapping[str, torch.Tensor] | None = None,
    **changes: Any,
) -> NDArray[np.int16]:
    """diffusers, as its documentation says.

    Args:
        added: to weights, by their layers' names.
    """
    absent = {"safety_checker": None, "feature_extractor": None} if name == "HunyuanDiT" else {}
    plain: Any = DiffusionPipeline.from_pretrained(info.folder, local_files_only=True, **absent)
    plain.set_progress_bar_config(disable=True)
    if name in REPLACED:
        plain.scheduler = create_scheduler(dict(plain.scheduler.config), info.default.sampler, info.default.schedule)
    options: dict[str, Any] = {"guidance_scale": info.default.guidance}
    if name == "QwenImage":
        options = {"true_cfg_scale": info.default.guidance, "negative_prompt": " "}
    if "use_resolution_binning" in inspect.signature(plain.__call__).parameters:
        options["use_resolution_binning"] = False
    if lora is not None:
        plain.load_lora_weights(str(lora.path.parent), weight_name=lora.path.name, adapter_name="a")
        plain.set_adapters(["a"], [lora.weight])
    for layer, change in (added or {}).items():
        getattr(plain, WHOLE[f"{name}Pipeline"].loras[0]).get_submodule(layer).weight.data += change
    image = plain(
        "a red cat", height=64, width=64, num_inference_steps=3, output_type="np",
        generator=torch.Generator().manual_seed(7), **{**options, **changes},
    ).images[0]  # fmt: skip
    picture: NDArray[np.int16] = (image * 255).round().astype(np.int16)
    return picture


@pytest.mark.parametrize("name", FAMILIES)
def test_equal_to_diffusers(renderer: Renderer, family: Family, name: str) -> None:
    """With and without a negative prompt; guidance is heard."""
    info = family(name)
    told: list[Progress] = []
    picture = paint(renderer, info, on_progress=told.append)
    assert picture.shape == (64, 64, 3)
    assert picture.std() > 2
    assert furthest(picture, expected(info, name)) <= 2
    # Who is slow to listen hears the newest only.
    steps = [progress.step for progress in told if progress.step]
    assert steps == sorted(steps)
    assert set(steps) <= {1, 2, 3}
    assert steps[-1] == 3
    away = paint(renderer, info, negative_prompt="a blue heart", guidance=9.0)
    guidance = {"true_cfg_scale" if name == "QwenImage" else "guidance_scale": 9.0}
    assert furthest(away, expected(info, name, negative_prompt="a blue heart", **guidance)) <= 2
    assert not np.array_equal(away, picture)
    assert np.array_equal(paint(renderer, info), picture)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_cancel_takes_effect_within_a_step(renderer: Renderer, family: Family, name: str) -> None:
    seen: list[int] = []
    with pytest.raises(RenderCancelled):
        paint(
            renderer,
            family(name),
            steps=900,
            on_progress=lambda progress: seen.append(progress.step),
            is_cancelled=lambda: bool(seen) and seen[-1] > 2,
        )
    assert seen[-1] < 850
    # Whoever comes next waits for no more than the step.
    paint(renderer, family(name))


@pytest.mark.parametrize("name", WITH_LORAS)
def test_loras_equal_diffusers(renderer: Renderer, family: Family, tmp_path: Path, name: str) -> None:
    """Of layers that every block has; and changes of the same layers, added to the weights."""
    info, [component] = family(name), WHOLE[f"{name}Pipeline"].loras
    plain: Any = DiffusionPipeline.from_pretrained(info.folder, local_files_only=True)
    generator = torch.Generator().manual_seed(1)
    pairs: dict[str, torch.Tensor] = {}
    wholes: dict[str, torch.Tensor] = {}
    added: dict[str, torch.Tensor] = {}
    linear = [
        (layer, part)
        for layer, part in getattr(plain, component).named_modules()
        if isinstance(part, torch.nn.Linear) and layer.endswith((".to_q", ".to_v", ".to_out.0"))
    ]
    assert linear
    for layer, part in linear:
        down = torch.randn(4, part.in_features, generator=generator)
        up = torch.randn(part.out_features, 4, generator=generator)
        stem = f"{component}.{layer}"
        pairs |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
        wholes[f"{stem}.diff"] = up @ down
        added[layer] = 0.5 * up @ down
    bare = paint(renderer, info)
    pictures = []
    for label, tensors in (("pairs", pairs), ("wholes", wholes)):
        path = tmp_path / f"{label}.safetensors"
        save_file(tensors, path)
        lora = LoraRef(hashlib.sha256(path.read_bytes()).hexdigest(), path, 0.5)
        pictures.append(paint(renderer, info, loras=[lora]))
        # Its loader does not work.
        if label == "pairs" and name != "Kandinsky3":
            assert furthest(pictures[0], expected(info, name, lora)) <= 2
        assert furthest(pictures[-1], expected(info, name, added=added)) <= 2
    assert not np.array_equal(pictures[0], bare)
    assert np.array_equal(paint(renderer, info), bare)


def test_what_they_are_asked_for_by_default(family: Family, tmp_path: Path) -> None:
    lcm = read_base_model(make_tiny_lcm(tmp_path / "lcm"))
    found = {name: family(name) for name in ("AuraFlow", "CogView3Plus", "Kandinsky3", "PixArtSigma", "Sana")}
    chosen = {name: (info.default.sampler, info.default.schedule) for name, info in {**found, "lcm": lcm}.items()}
    assert chosen == {
        "AuraFlow": ("euler", "default"),
        "CogView3Plus": ("ddim", "default"),
        "Kandinsky3": ("dpmpp_2m", "karras"),
        "PixArtSigma": ("dpmpp_2m", "karras"),
        "Sana": ("dpmpp_2m", "default"),
        "lcm": ("lcm", "default"),
    }
    assert (found["Kandinsky3"].size_step, found["PixArtSigma"].size_step, found["Sana"].size_step) == (64, 16, 64)
    (found["Sana"].folder / "visionsuit.json").rename(tmp_path / "own.json")
    assert read_base_model(found["Sana"].folder).sizes[0] == (1024, 1024)
    (tmp_path / "own.json").rename(found["Sana"].folder / "visionsuit.json")


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "euler", "unipc", "lcm"])
def test_samplers_that_do_not_go_with_one_harm_nobody(
    renderer: Renderer, family: Family, tmp_path: Path, sampler: str
) -> None:
    """Its own stands in, whatever is wished."""
    lcm = read_base_model(make_tiny_lcm(tmp_path / "lcm"))
    for info in (family("Sana"), family("CogView3Plus"), lcm):
        picture = paint(renderer, info, sampler=sampler, schedule="karras")
        assert picture.std() > 2
        if info is not family("Sana") or sampler == "dpmpp_2m":
            assert np.array_equal(picture, paint(renderer, info))


def test_what_would_fail_or_come_out_otherwise_is_refused(renderer: Renderer, family: Family) -> None:
    with pytest.raises(EngineError, match="takes 2 steps at least"):
        paint(renderer, family("PixArtAlpha"), steps=1)
    with pytest.raises(EngineError, match="multiples of 64"):
        paint(renderer, family("Kandinsky3"), size=(96, 64))


def test_words_may_be_pieces(renderer: Renderer, family: Family, tmp_path: Path) -> None:
    """As on the hub: a tokenizer in sentencepiece's own file alone."""
    folder = tmp_path / "PixArt"
    shutil.copytree(family("PixArtSigma").folder, folder)
    shutil.rmtree(folder / "tokenizer")
    (folder / "tokenizer").mkdir()
    with (folder / "tokenizer" / "spiece.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["a red cat", "cat a red", "red a cat"]),
            model_writer=file, vocab_size=11, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
        )  # fmt: skip
    (folder / "tokenizer" / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer", "extra_ids": 0}')
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "tokenizer": ["transformers", "T5Tokenizer"]}))
    info = read_base_model(folder)
    picture = paint(renderer, info)
    assert picture.std() > 2
    assert not np.array_equal(picture, Renderer(renderer.engine, {"own": info})("own", "cat", steps=3)[0])


def test_what_cannot_work_is_refused_when_it_is_added(family: Family, tmp_path: Path) -> None:
    folder = tmp_path / "PixArt"
    shutil.copytree(family("PixArtSigma").folder, folder)
    assert Ability.LORAS not in read_base_model(folder).abilities
    for name in ("StableCascadeCombinedPipeline", "KandinskyV22CombinedPipeline"):
        (folder / "model_index.json").write_text(json.dumps({"_class_name": name}))
        with pytest.raises(ModelUnloadable, match=f"is a {name}; the generator renders"):
            read_base_model(folder)
