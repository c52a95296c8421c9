import gc
import hashlib
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.engine.conftest import Renderer
from tests.engine.plain import load_plain, render_plain
from tests.engine.tiny import make_lora
from visionsuit.engine.base import LoraRef, LoraUnloadable
from visionsuit.engine.compat import read_base_shapes
from visionsuit.engine.lora_names import Component
from visionsuit.engine.lora_packs import Layout, PackCache

FAMILIES = ("sd", "sdxl", "demo")


#: A mix is added beside the weights or merged into a copy of them, as time allows: equal but for rounding.
ROUNDING = 2


def furthest(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one - other).max())


@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.parametrize("kind", ["kohya", "diffusers"])
@pytest.mark.parametrize(("text_encoder", "conv"), [(False, False), (True, True)])
def test_equals_diffusers_own_adapters(
    renderer: Renderer, lora_folder: Path, model: str, kind: str, text_encoder: bool, conv: bool
) -> None:
    base, path = renderer.models[model].folder, lora_folder / "a.safetensors"
    sha256 = make_lora(path, base, 4, kind, text_encoder=text_encoder, conv=conv, alpha=2, seed=1)  # type: ignore[arg-type]
    [plain] = renderer(model)
    [ours] = renderer(model, loras=[LoraRef(sha256, path, 0.7)])
    assert np.abs(ours - plain).mean() > 2
    assert furthest(ours, render_plain(base, loras=[(path, 0.7)])) <= 2


@pytest.mark.parametrize("model", FAMILIES)
def test_a_mix_of_two_formats_equals_diffusers(renderer: Renderer, lora_folder: Path, model: str) -> None:
    base, one, two = renderer.models[model].folder, lora_folder / "one.safetensors", lora_folder / "two.safetensors"
    first = LoraRef(make_lora(one, base, 4, "kohya", text_encoder=True, seed=2), one, 0.8)
    second = LoraRef(make_lora(two, base, 8, "diffusers", conv=True, seed=3), two, -0.5)
    [ours] = renderer(model, loras=[first, second])
    assert furthest(ours, render_plain(base, loras=[(one, 0.8), (two, -0.5)])) <= 2
    [only_first] = renderer(model, loras=[first])
    assert np.abs(ours - only_first).mean() > 2


def test_weight_zero_is_no_lora_and_switching_leaves_no_trace(renderer: Renderer, lora_folder: Path) -> None:
    base = renderer.models["sd"].folder
    refs = []
    for number in range(3):
        path = lora_folder / f"{number}.safetensors"
        refs.append(LoraRef(make_lora(path, base, 4, text_encoder=True, conv=True, seed=number), path, 1.0))
    [clean] = renderer("sd")
    [zero] = renderer("sd", loras=[LoraRef(refs[0].sha256, refs[0].path, 0.0)])
    assert furthest(clean, zero) <= ROUNDING
    for number in range(12):
        renderer("sd", steps=1, loras=[refs[number % 3], refs[(number + 1) % 3]])
    [after] = renderer("sd")
    assert furthest(clean, after) <= ROUNDING


def test_text_encoder_weight_counts_apart(renderer: Renderer, lora_folder: Path) -> None:
    path = lora_folder / "te.safetensors"
    sha256 = make_lora(path, renderer.models["sd"].folder, 4, text_encoder=True, seed=4)
    pictures = [
        renderer("sd", loras=[LoraRef(sha256, path, unet, text)])[0]
        for unet, text in ((1.0, None), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))
    ]
    assert furthest(pictures[0], pictures[3]) <= ROUNDING
    assert np.abs(pictures[0] - pictures[1]).mean() > 0.5
    assert np.abs(pictures[1] - pictures[2]).mean() > 0.5


def test_the_same_file_twice_counts_with_the_sum(renderer: Renderer, lora_folder: Path) -> None:
    path = lora_folder / "twice.safetensors"
    sha256 = make_lora(path, renderer.models["sd"].folder, seed=5)
    [twice] = renderer("sd", loras=[LoraRef(sha256, path, 0.25), LoraRef(sha256, path, 0.5)])
    [once] = renderer("sd", loras=[LoraRef(sha256, path, 0.75)])
    # Merged or in a slot, as the times so far say: equal but for rounding.
    assert np.abs(twice.astype(int) - once).max() <= 1


def test_known_by_hash_not_by_name_or_path(renderer: Renderer, lora_folder: Path) -> None:
    base, path = renderer.models["sd"].folder, lora_folder / "same.safetensors"
    first = LoraRef(make_lora(path, base, seed=6), path, 1.0, name="same")
    [one] = renderer("sd", loras=[first])
    second = LoraRef(make_lora(path, base, seed=7), path, 1.0, name="same")
    [two] = renderer("sd", loras=[second])
    assert np.abs(one - two).mean() > 2
    loads = renderer.engine.status().extra["lora_loads"]
    # The file of the first is gone by now; only a copy kept under its hash can still serve it.
    assert furthest(renderer("sd", loras=[first])[0], one) <= ROUNDING
    assert renderer.engine.status().extra["lora_loads"] == loads


def test_a_file_that_its_hash_does_not_name_is_refused(renderer: Renderer, lora_folder: Path) -> None:
    path = lora_folder / "swapped.safetensors"
    make_lora(path, renderer.models["sd"].folder, seed=8)
    with pytest.raises(LoraUnloadable, match="checksum"):
        renderer("sd", loras=[LoraRef("0" * 64, path, 1.0)])


def test_one_that_does_not_fit_is_refused_and_harms_nothing(renderer: Renderer, lora_folder: Path) -> None:
    path = lora_folder / "xl.safetensors"
    sha256 = make_lora(path, renderer.models["sdxl"].folder, seed=9)
    [before] = renderer("sd")
    with pytest.raises(LoraUnloadable, match="made for a model of another size"):
        renderer("sd", loras=[LoraRef(sha256, path, 1.0, name="wide")])
    assert furthest(renderer("sd")[0], before) <= ROUNDING


def test_nothing_of_the_last_mix_is_left_after_a_failed_one(renderer: Renderer, lora_folder: Path) -> None:
    good, bad = lora_folder / "good.safetensors", lora_folder / "bad.safetensors"
    fits = LoraRef(make_lora(good, renderer.models["sd"].folder, seed=12), good, 1.0)
    too_wide = LoraRef(make_lora(bad, renderer.models["sdxl"].folder, seed=12), bad, 1.0)
    [before] = renderer("sd")
    [mixed] = renderer("sd", loras=[fits])
    with pytest.raises(LoraUnloadable):
        renderer("sd", loras=[fits, too_wide])
    assert furthest(renderer("sd")[0], before) <= ROUNDING
    assert furthest(renderer("sd", loras=[fits])[0], mixed) <= ROUNDING


@pytest.mark.parametrize("damage", ["text", "cut", "nan", "gone"])
def test_broken_files_are_refused(renderer: Renderer, lora_folder: Path, damage: str) -> None:
    path = lora_folder / "broken.safetensors"
    make_lora(path, renderer.models["sd"].folder, seed=10)
    if damage == "text":
        path.write_text("this is not a safetensors file at all")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-500])
    elif damage == "nan":
        save_file({name: torch.full_like(tensor, float("nan")) for name, tensor in load_file(path).items()}, path)
    sha256 = _sha256(path)
    if damage == "gone":
        path.unlink()
    with pytest.raises(LoraUnloadable):
        renderer("sd", loras=[LoraRef(sha256, path, 1.0)])


def test_names_of_the_training_code_mean_the_same(renderer: Renderer, lora_folder: Path) -> None:
    """kohya's SDXL trainer numbers blocks through: `input_blocks_2_0_...`."""
    base, path, other = renderer.models["sdxl"].folder, lora_folder / "d.safetensors", lora_folder / "t.safetensors"
    sha256 = make_lora(path, base, conv=True, seed=11)
    renames = {
        "down_blocks_0_resnets_0_conv1": "input_blocks_1_0_in_layers_2",
        "down_blocks_0_resnets_0_conv2": "input_blocks_1_0_out_layers_3",
        "down_blocks_1_resnets_0_conv1": "input_blocks_3_0_in_layers_2",
        "down_blocks_1_resnets_0_conv2": "input_blocks_3_0_out_layers_3",
        "down_blocks_1_attentions_0": "input_blocks_3_1",
        "mid_block_attentions_0": "middle_block_1",
        "mid_block_resnets_0_conv1": "middle_block_0_in_layers_2",
        "mid_block_resnets_0_conv2": "middle_block_0_out_layers_3",
        "mid_block_resnets_1_conv1": "middle_block_2_in_layers_2",
        "mid_block_resnets_1_conv2": "middle_block_2_out_layers_3",
        "up_blocks_0_attentions_0": "output_blocks_0_1",
        "up_blocks_0_attentions_1": "output_blocks_1_1",
    } | {
        f"up_blocks_{block}_resnets_{layer}_{conv}": f"output_blocks_{2 * block + layer}_0_{inner}"
        for block in (0, 1)
        for layer in (0, 1)
        for conv, inner in (("conv1", "in_layers_2"), ("conv2", "out_layers_3"))
    }
    renamed = {}
    for name, tensor in load_file(path).items():
        for old, new in renames.items():
            name = name.replace(f"lora_unet_{old}", f"lora_unet_{new}")
        assert "blocks_" in name or "middle_block" in name
        renamed[name] = tensor
    assert not any("down_blocks" in name or "up_blocks" in name for name in renamed)
    save_file(renamed, other)
    [expected] = renderer("sdxl", loras=[LoraRef(sha256, path, 1.0)])
    [ours] = renderer("sdxl", loras=[LoraRef(_sha256(other), other, 1.0)])
    assert furthest(ours, expected) <= ROUNDING


def test_tucker_form_equals_its_product(renderer: Renderer, lora_folder: Path) -> None:
    lora_folder.mkdir()
    generator = torch.Generator().manual_seed(3)
    stem, rank = "lora_unet_mid_block_resnets_0_conv1", 4
    down, mid, up = (
        torch.randn(*shape, generator=generator) * 0.3 for shape in ((rank, 64), (rank, rank, 3, 3), (64, rank))
    )
    tucker, plain = lora_folder / "tucker.safetensors", lora_folder / "plain.safetensors"
    save_file(
        {
            f"{stem}.lora_down.weight": down.reshape(rank, 64, 1, 1),
            f"{stem}.lora_mid.weight": mid,
            f"{stem}.lora_up.weight": up.reshape(64, rank, 1, 1),
            f"{stem}.alpha": torch.tensor(2.0),
        },
        tucker,
    )
    product = torch.einsum("or,rqhw,qi->oihw", up, mid, down).reshape(64, -1)
    left, values, right = torch.linalg.svd(product, full_matrices=False)
    full = left.shape[1]
    save_file(
        {
            f"{stem}.lora_down.weight": right.reshape(full, 64, 3, 3).contiguous(),
            f"{stem}.lora_up.weight": (left * values * 0.5).reshape(64, full, 1, 1).contiguous(),
            f"{stem}.alpha": torch.tensor(float(full)),
        },
        plain,
    )
    [clean] = renderer("sd")
    [one], [two] = (renderer("sd", loras=[LoraRef(_sha256(path), path, 1.0)]) for path in (tucker, plain))
    assert furthest(one, two) <= 1
    assert furthest(one, clean) > 5


def test_parsed_files_are_bounded_and_freed(renderer: Renderer, lora_folder: Path) -> None:
    base = renderer.models["sd"].folder
    pipeline = load_plain(base)
    modules = {Component.UNET: pipeline.unet, Component.TEXT_ENCODER: pipeline.text_encoder}
    layouts = {component: Layout(module) for component, module in modules.items()}
    cache = PackCache(read_base_shapes(base), layouts, torch.float32, budget_bytes=100_000)
    refs = []
    for number in range(5):
        path = lora_folder / f"{number}.safetensors"
        refs.append(LoraRef(make_lora(path, base, 4, seed=number), path, 1.0))
    first = cache.get(refs[0])
    assert cache.get(refs[0]) is first
    assert cache.loads == 1
    assert first.bytes > 30_000
    oldest = weakref.ref(next(iter(first.parts[Component.UNET].values())).down)
    del first
    for ref in refs:
        cache.get(ref)
    assert cache.loads == 5
    assert 1 <= len(cache) < 5
    assert cache.bytes <= 100_000
    gc.collect()
    assert oldest() is None
    cache.get(refs[-1])
    assert cache.loads == 5


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
