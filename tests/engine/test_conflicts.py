from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.engine.tiny import make_lora, make_tiny_sd
from visionsuit.engine.conflicts import Products, meet, read_matrices


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_sd(tmp_path_factory.mktemp("base") / "sd")


def test_products_equal_those_of_the_whole_changes(base: Path, tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.safetensors" for name in ("one", "two")}
    for seed, (name, path) in enumerate(paths.items()):
        make_lora(path, base, 4 + 4 * seed, "kohya", conv=True, seed=seed, alpha=2.0)
        assert read_matrices(paths[name]).matrices
    files = {name: read_matrices(path) for name, path in paths.items()}
    whole = {
        name: torch.cat([(up @ down).flatten() for _, (down, up) in sorted(one.matrices.items())])
        for name, one in files.items()
    }
    [met] = meet({"one": 0.5, "two": -1.0}, files)
    cosine = torch.nn.functional.cosine_similarity(whole["one"], whole["two"], dim=0)
    assert met.overlap == pytest.approx(-float(cosine), rel=1e-3, abs=1e-6)
    assert met.balance == pytest.approx(0.5 * float(whole["one"].norm() / whole["two"].norm()), rel=1e-4)
    assert met.shared == pytest.approx(1.0)
    assert len(met.worst) == 5


def test_the_same_file_twice_is_the_worst_conflict(base: Path, tmp_path: Path) -> None:
    first, other, part = (tmp_path / f"{name}.safetensors" for name in ("first", "other", "part"))
    make_lora(first, base, 4, "kohya", seed=1)
    make_lora(other, base, 4, "diffusers", seed=2)
    tensors = load_file(first)
    save_file({name: tensor for name, tensor in tensors.items() if "attn2" in name and "down_blocks" in name}, part)
    files = {name: read_matrices(path) for name, path in (("a", first), ("same", first), ("b", other), ("part", part))}
    products = Products()
    met = {(one.first, one.second): one for one in meet(dict.fromkeys(files, 1.0), files, products)}
    assert next(iter(met)) in {("a", "same"), ("a", "part"), ("same", "part")}
    assert met["a", "same"].overlap == pytest.approx(1.0, abs=1e-4)
    assert met["a", "same"].balance == pytest.approx(1.0)
    assert abs(met["a", "b"].overlap) < 0.2
    assert met["a", "part"].balance > 1
    assert met["a", "part"].shared == pytest.approx(1.0)
    weaker = {(one.first, one.second): one for one in meet({"a": 0.5, "same": 1.0, "b": 0.0}, files, products)}
    assert list(weaker) == [("a", "same")]
    assert weaker["a", "same"].balance == pytest.approx(0.5)
