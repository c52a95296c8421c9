import json
from pathlib import Path

import pytest

from tests.engine.tiny import DEMO, make_tiny_sd, make_tiny_sdxl
from visionsuit.engine.base import Family, ModelUnloadable
from visionsuit.engine.catalog import content_key, list_base_models, read_base_model


def test_the_demo_model_says_what_it_is() -> None:
    info = read_base_model(DEMO)
    assert (info.label, info.family, info.prompt_tokens) == ("VisionSuit Demo", Family.SD1, 32)
    assert (info.default.width, info.default.steps, info.default.schedule) == (64, 12, "trailing")
    assert len(info.suggestions) >= 10
    assert all(side % info.size_step == 0 for size in info.sizes for side in size)
    shape = json.loads(json.dumps(info.as_json()))
    assert "folder" not in shape
    assert str(DEMO) not in json.dumps(shape)


def test_defaults_come_from_the_configs(tmp_path: Path) -> None:
    sd = read_base_model(make_tiny_sd(tmp_path / "My SD", prediction_type="v_prediction"))
    assert (sd.label, sd.family, sd.default.width, sd.prediction_type) == ("My SD", Family.SD1, 64, "v_prediction")
    xl = read_base_model(make_tiny_sdxl(tmp_path / "xl"))
    assert (xl.family, xl.default.guidance) == (Family.SDXL, 6.0)
    assert list_base_models(tmp_path) == [tmp_path / "My SD", tmp_path / "xl"]
    assert list_base_models(tmp_path / "nothing") == []


def test_the_key_follows_the_content(tmp_path: Path) -> None:
    folder = make_tiny_sd(tmp_path / "sd")
    before = content_key(folder)
    assert content_key(folder) == before
    (folder / "visionsuit.json").write_text(json.dumps({"label": "Named", "sizes": "all", "suggestions": [1, "x"]}))
    assert content_key(folder) != before
    info = read_base_model(folder)
    assert (info.label, info.suggestions) == ("Named", ("x",))
    assert info.sizes[0] == (64, 64)


@pytest.mark.parametrize(
    "damage", ["gone", "no index", "bad json", "no vae", "no weights", "other class", "other task"]
)
def test_a_bad_folder_is_refused_with_the_reason(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "bad"
    if damage != "gone":
        make_tiny_sd(folder)
    if damage == "no index":
        (folder / "model_index.json").unlink()
    elif damage == "bad json":
        (folder / "unet" / "config.json").write_text("{")
    elif damage == "no vae":
        (folder / "vae" / "config.json").unlink()
    elif damage == "no weights":
        (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    elif damage == "other class":
        (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionUpscalePipeline"}')
    elif damage == "other task":
        config = json.loads((folder / "unet" / "config.json").read_text())
        (folder / "unet" / "config.json").write_text(json.dumps(config | {"in_channels": 8}))
    with pytest.raises(ModelUnloadable, match="bad"):
        read_base_model(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vae/config.json", {"block_out_channels": 5}),
        ("vae/config.json", {"block_out_channels": [1] * 200}),
        ("model_index.json", {"_class_name": ["StableDiffusionPipeline"]}),
        ("visionsuit.json", {"default": {"sampler": {}}}),
        ("visionsuit.json", {"default": {"guidance": 10**400}}),
        ("visionsuit.json", "[" * 100_000),
        ("unet/config.json", {"in_channels": "a"}),
    ],
)
def test_a_configuration_of_nonsense_is_refused_in_words(tmp_path: Path, name: str, content: object) -> None:
    # A download from a hub is looked at again at every start: it must not keep the site from starting.
    folder = make_tiny_sd(tmp_path / "odd")
    file = folder / name
    if isinstance(content, dict):
        before = json.loads(file.read_text()) if file.exists() else {}
        content = json.dumps(before | content)
    file.write_text(str(content))
    with pytest.raises(ModelUnloadable, match="odd"):
        read_base_model(folder)


def test_sizes_and_numbers_that_no_database_holds_are_not_taken(tmp_path: Path) -> None:
    folder = make_tiny_sd(tmp_path / "sd")
    (folder / "visionsuit.json").write_text('{"default": {"guidance": NaN}}')
    config = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps(config | {"sample_size": 10**30}))
    info = read_base_model(folder)
    assert info.default.guidance == 7.0
    assert 0 < info.max_size < 10**5
