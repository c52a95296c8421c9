import time
from collections.abc import Sequence
from hashlib import sha256
from itertools import combinations
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.engine.tiny import make_lora, make_tiny_sd
from visionsuit.engine.base import LoraRef, LoraUnloadable
from visionsuit.engine.change_sizes import measure
from visionsuit.engine.compat import read_base_shapes
from visionsuit.engine.conflicts import Change, Layer, Meeting, Verdict, Weights, meet, say
from visionsuit.engine.lora_files import read_lora
from visionsuit.engine.lora_names import Component


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_sd(tmp_path_factory.mktemp("base") / "sd")


def met(paths: Sequence[Path], base: Path, *weights: Weights) -> dict[tuple[int, int], Meeting]:
    measured = measure(paths, read_base_shapes(base))
    given = weights or tuple(Weights(1.0) for _ in paths)
    return {(one.first, one.second): one for one in meet(given, measured.changes, measured.products)}


def whole(path: Path, base: Path) -> dict[Layer, torch.Tensor]:
    """Every layer's change, formed whole, as the engine reads the file."""
    digest = sha256(path.read_bytes()).hexdigest()
    file = read_lora(LoraRef(sha256=digest, path=path, weight=1.0), read_base_shapes(base))
    found: dict[Layer, torch.Tensor] = {}
    for component, shapes in read_base_shapes(base).index.shapes.items():
        for name, (down, up) in file.pairs.get(component, {}).items():
            found[component, name] = up.double().flatten(1) @ down.double().flatten(1)
        for name, change in file.changes.get(component, {}).items():
            found[component, name] = change.delta(torch.zeros(shapes[name]), 1.0).double()
        for name, bias in file.biases.get(component, {}).items():
            found[component, f"{name}.bias"] = bias.double()
    return {layer: change.flatten() for layer, change in found.items()}


def stem_of(layer: str) -> str:
    return f"lora_unet_{layer.replace('.', '_')}"


@pytest.mark.parametrize("most_bytes", [1 << 30, 0])
@pytest.mark.parametrize("pairs", [None, [(1, 3)], [(0, 2), (1, 2), (2, 3)]])
def test_every_layer_equals_the_whole_changes(
    base: Path, tmp_path: Path, pairs: list[tuple[int, int]] | None, most_bytes: int
) -> None:
    paths = [tmp_path / f"{number}.safetensors" for number in range(4)]
    make_lora(paths[0], base, 4, "kohya", text_encoder=True, conv=True, seed=1, alpha=2.0)
    make_lora(paths[1], base, 16, "diffusers", transformer=True, seed=2, alpha=3.0)
    make_lora(paths[2], base, 1, "kohya", conv=True, transformer=True, seed=3)
    # One of many formats: whole changes, biases, a pair in another number format.
    shapes = read_base_shapes(base).index.shapes[Component.UNET]
    a, b, c = [name for name in sorted(shapes) if "attn" in name and name.endswith(("to_q", "to_k", "to_v"))][:3]
    torch.manual_seed(4)
    save_file(
        {
            f"{stem_of(a)}.diff": torch.randn(shapes[a]),
            f"{stem_of(a)}.diff_b": torch.randn(shapes[a][0]),
            f"{stem_of(b)}.lora_down.weight": torch.randn(3, shapes[b][1]).bfloat16(),
            f"{stem_of(b)}.lora_up.weight": torch.randn(shapes[b][0], 3).bfloat16(),
            f"{stem_of(c)}.diff_b": torch.randn(shapes[c][0]),
        },
        paths[3],
    )
    measured = measure(paths, read_base_shapes(base), pairs=pairs, most_bytes=most_bytes)
    changes = [whole(path, base) for path in paths]
    assert set(measured.products) == set(pairs or combinations(range(4), 2))
    assert measured.changes[3].squares.keys() > {(Component.UNET, f"{a}.bias"), (Component.UNET, f"{c}.bias")}
    for found, change in zip(measured.changes, changes, strict=True):
        assert found.squares == pytest.approx({layer: float(one.dot(one)) for layer, one in change.items()}, rel=1e-5)
    for (one, other), products in measured.products.items():
        assert products.keys() == changes[one].keys() & changes[other].keys()
        assert products
        for layer, product in products.items():
            sizes = float(changes[one][layer].norm() * changes[other][layer].norm())
            assert product == pytest.approx(float(changes[one][layer].dot(changes[other][layer])), abs=1e-5 * sizes)


def test_products_equal_those_of_the_whole_changes(base: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    for seed, path in enumerate(paths):
        make_lora(path, base, 4 + 4 * seed, "kohya", text_encoder=True, conv=True, seed=seed, alpha=2.0)
    one, two = ({layer: change.float() for layer, change in whole(path, base).items()} for path in paths)
    assert {component for component, _ in one} > {Component.UNET}
    weights = Weights(0.5, 0.25), Weights(-1.0)
    flat = [
        torch.cat([changes[layer].flatten() * weight.of(layer[0]) for layer in sorted(one)])
        for changes, weight in zip((one, two), weights, strict=True)
    ]
    [found] = met(paths, base, *weights).values()
    cosine = torch.nn.functional.cosine_similarity(flat[0], flat[1], dim=0)
    assert found.overlap == pytest.approx(float(cosine), rel=1e-3, abs=1e-6)
    assert found.balance == pytest.approx(float(flat[0].norm() / flat[1].norm()), rel=1e-4)
    assert found.shared == pytest.approx(1.0)
    assert len(found.worst) == 5


def test_the_same_file_twice_is_the_worst_conflict_however_it_is_spelt(base: Path, tmp_path: Path) -> None:
    first, other, part = (tmp_path / f"{name}.safetensors" for name in ("first", "other", "part"))
    make_lora(first, base, 4, "kohya", seed=1)
    make_lora(other, base, 4, "diffusers", seed=2)
    tensors = load_file(first)
    save_file({name: tensor for name, tensor in tensors.items() if "attn2" in name and "down_blocks" in name}, part)
    same, b, small = 1, 2, 3
    found = met([first, first, other, part], base)
    assert next(iter(found)) in {(0, same), (0, small), (same, small)}
    assert found[0, same].overlap == pytest.approx(1.0, abs=1e-4)
    assert found[0, same].balance == pytest.approx(1.0)
    assert found[0, same].verdict is Verdict.ALIKE
    # Layers meet by the base model's names: another trainer's spelling hides nothing.
    assert found[0, b].shared == pytest.approx(1.0)
    assert abs(found[0, b].overlap) < 0.2
    assert found[0, small].balance > 1
    assert found[0, small].shared == pytest.approx(1.0)
    silent = met([first, first, other], base, Weights(0.5), Weights(1.0), Weights(0.0))
    assert list(silent) == [(0, same)]
    assert silent[0, same].balance == pytest.approx(0.5)
    assert met([first, first], base, Weights(1.0), Weights(-1.0))[0, 1].verdict is Verdict.OPPOSED
    assert met([first, first], base, Weights(1.0), Weights(0.2))[0, 1].verdict is Verdict.DROWNED


@pytest.mark.parametrize("kind", ["full", "loha"])
def test_changes_that_are_no_pair_are_measured_too(base: Path, tmp_path: Path, kind: str) -> None:
    layer = next(name for name in sorted(read_base_shapes(base).index.shapes[Component.UNET]) if "attn2.to_k" in name)
    rows, columns = read_base_shapes(base).index.shapes[Component.UNET][layer]
    stem = f"lora_unet_{layer.replace('.', '_')}"
    torch.manual_seed(3)
    factors = {
        f"w{n}_{side}": torch.randn(*size) for n in (1, 2) for side, size in (("a", (rows, 2)), ("b", (2, columns)))
    }
    change = (factors["w1_a"] @ factors["w1_b"]) * (factors["w2_a"] @ factors["w2_b"])
    paths = [tmp_path / "odd.safetensors", tmp_path / "pair.safetensors"]
    odd = (
        {f"{stem}.diff": change}
        if kind == "full"
        else {f"{stem}.hada_{name}": tensor for name, tensor in factors.items()}
    )
    down, up = torch.randn(2, columns), torch.randn(rows, 2)
    save_file(odd, paths[0])
    save_file({f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}, paths[1])
    found = met([*paths, paths[0]], base)
    cosine = torch.nn.functional.cosine_similarity(change.flatten(), (up @ down).flatten(), dim=0)
    assert found[0, 1].overlap == pytest.approx(float(cosine), abs=1e-5)
    assert found[0, 2].overlap == pytest.approx(1.0, abs=1e-5)


def test_the_sentence_names_the_one_that_drowns(base: Path) -> None:
    layer = (Component.UNET, "a")
    far = (Component.UNET, "b")
    quiet, loud, apart = Change({layer: 1.0}), Change({layer: 100.0}), Change({far: 1.0})
    every = Weights(1.0)
    [found] = meet([every, every], [quiet, loud], {(0, 1): {layer: 0.0}})
    assert say(found, "Ink", "Neon") == "“Neon” drowns “Ink”: its change is 10 times as large."
    [found] = meet([every, Weights(0.1)], [quiet, loud], {(0, 1): {layer: 7.0}})
    assert say(found, "Ink", "Neon").startswith("“Ink” and “Neon” do much the same (70% overlap)")
    [found] = meet([every, every], [quiet, apart], {(0, 1): {}})
    assert "different layers" in say(found, "Ink", "Neon")


def test_a_broken_file_is_told(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"nothing like it")
    with pytest.raises(LoraUnloadable):
        measure([path, path], read_base_shapes(base))


def test_the_file_with_what_is_no_number_is_named(base: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.safetensors" for name in ("good", "wrong", "fine")]
    for seed, path in enumerate(paths):
        make_lora(path, base, 4, seed=seed)
    tensors = load_file(paths[1])
    name = next(name for name in tensors if name.endswith("lora_up.weight"))
    tensors[name][0, 0] = float("nan")
    save_file(tensors, paths[1])
    with pytest.raises(LoraUnloadable, match=r"^wrong"):
        measure(paths, read_base_shapes(base))


def test_what_depends_on_the_base_models_weights_is_said_not_to_be_counted(base: Path, tmp_path: Path) -> None:
    shapes = read_base_shapes(base).index.shapes[Component.UNET]
    layer = next(name for name in sorted(shapes) if name.endswith("attn2.to_k"))
    rows, columns = shapes[layer]
    turned, rescaled, plain = (tmp_path / f"{name}.safetensors" for name in ("oft", "dora", "plain"))
    pair = {
        f"{stem_of(layer)}.lora_down.weight": torch.ones(2, columns),
        f"{stem_of(layer)}.lora_up.weight": torch.ones(rows, 2),
    }
    save_file({f"{stem_of(layer)}.oft_blocks": torch.ones(rows // 4, 4, 4)}, turned)
    save_file(pair | {f"{stem_of(layer)}.dora_scale": torch.ones(rows, 1)}, rescaled)
    save_file(pair, plain)
    measured = measure([turned, rescaled, plain], read_base_shapes(base))
    assert [change.is_partial for change in measured.changes] == [True, True, False]
    assert not measured.changes[0].squares
    assert measured.changes[1].squares == measured.changes[2].squares


def test_a_slider_is_answered_at_once(base: Path) -> None:
    """The size of SDXL: 12 LoRAs, 66 pairs, 800 layers each, no file at hand."""
    layers = [(Component.UNET, f"layer {number}") for number in range(800)]
    changes = [Change(dict.fromkeys(layers, 1.0 + number)) for number in range(12)]
    products = {(a, b): dict.fromkeys(layers, 0.1) for a in range(12) for b in range(a + 1, 12)}
    began = time.thread_time()
    assert len(meet([Weights(0.7)] * 12, changes, products)) == 66
    assert time.thread_time() - began < 2.0


def test_matrices_that_cannot_be_put_together_are_said_to_be_so(tmp_path: Path) -> None:
    # The header alone does not tell: it says nothing against a factor that is not used.
    folder = make_tiny_sd(tmp_path / "base")
    shapes = read_base_shapes(folder)
    name, weight = next((n, s) for n, s in shapes.index.shapes[Component.UNET].items() if len(s) == 2)
    stem = f"lora_unet_{name.replace('.', '_')}"
    own = {
        "lokr_w1": torch.ones(2, 2),
        "lokr_w2": torch.ones(weight[0] // 2, weight[1] // 2),
        "lokr_w1_b": torch.tensor(1.0),
    }
    save_file({f"{stem}.{part}": tensor for part, tensor in own.items()}, tmp_path / "odd.safetensors")
    with pytest.raises(LoraUnloadable, match="odd"):
        measure([tmp_path / "odd.safetensors"], shapes)
