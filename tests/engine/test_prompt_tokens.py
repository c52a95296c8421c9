"""Counted as the engine cuts: the same tokens as transformers' tokenizer, from the same files."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from tests.engine.tiny import DEMO
from visionsuit.engine.base import ModelUnloadable
from visionsuit.engine.catalog import BaseModelInfo
from visionsuit.engine.prompt_tokens import PromptSize, _encoders, may_fill, measure_prompt


@pytest.fixture(scope="module", params=["whole", "parts", "padded"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[CLIPTokenizer, Path]:
    """A tokenizer of transformers and its folder: with tokenizer.json, without, with a pad token of its own."""
    folder = tmp_path_factory.mktemp("base")
    shutil.copytree(DEMO / "tokenizer", folder / "tokenizer")
    shutil.copytree(DEMO / "text_encoder", folder / "text_encoder", ignore=shutil.ignore_patterns("*.safetensors"))
    if request.param != "whole":
        (folder / "tokenizer" / "tokenizer.json").unlink()
    if request.param == "padded":
        path = folder / "tokenizer" / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"pad_token": "!"}))
    return CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True), folder


@settings(deadline=None)
@given(text=st.text(max_size=60) | st.text("abc RED!'s12.,\n\té<|>", max_size=60))
@example(text="a <|endoftext|> b<|startoftext|>c")
@example(text="wow!!! it's 1234 HÉARTS ﬁ ａ")
def test_tokens_are_those_of_transformers(pair: tuple[CLIPTokenizer, Path], text: str) -> None:
    tokenizer, folder = pair
    [encoder] = _encoders(folder, folder.name)
    text = text.replace("\0", "")
    expected = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids
    assert encoder.tokenize(text) == expected
    assert encoder.room == tokenizer.model_max_length - 2


@pytest.mark.parametrize(
    ("text", "tokens", "chunks"),
    [
        ("", 0, 1),
        ("red heart", 2, 1),
        ("(red:1.3) [heart]", 2, 1),
        ("red BREAK heart", 2, 2),
        ("red " * 30, 30, 1),
        ("red " * 31, 31, 2),
    ],
)
@pytest.mark.parametrize("name", ["sd", "sdxl", "demo"])
def test_size_of_a_prompt(models: dict[str, BaseModelInfo], name: str, text: str, tokens: int, chunks: int) -> None:
    model = models[name]
    assert measure_prompt(model.folder, model.key, text) == PromptSize(tokens, chunks, 30)


@settings(deadline=None)
@given(st.text(max_size=200) | st.lists(st.sampled_from(["BREAK", " ", "é", "(", "a", "😀"])).map("".join))
def test_the_bound_holds(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    assert measure_prompt(DEMO, "demo", text).chunks <= may_fill(text, 30)


def test_a_broken_tokenizer_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ModelUnloadable, match="no tokenizer"):
        measure_prompt(tmp_path, "a", "red")
    (tmp_path / "tokenizer").mkdir()
    with pytest.raises(ModelUnloadable, match="cannot be read"):
        measure_prompt(tmp_path, "b", "red")


def test_counting_needs_no_torch() -> None:
    code = (
        "import sys; import visionsuit.engine.prompt_tokens, visionsuit.engine.prompt_template;"
        "assert not {'torch', 'transformers', 'diffusers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
