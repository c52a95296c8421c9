import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visionsuit.media.a1111 import read_a1111, to_a1111
from visionsuit.media.recipe import Recipe, RecipeLora
from visionsuit.media.recipes import decode_user_comment, find_recipe, own_texts

A1111 = """masterpiece, (red fox:1.2), <lora:Ink Style:0.8>, forest <lora:detail:0.5:0.25>
second line
Negative prompt: blurry, lowres
worst quality
Steps: 28, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 3141592653, Size: 832x1216, \
Model hash: 31e35c80fc, Model: sd_xl_base_1.0, Lora hashes: "Ink Style: 9f86d081884c, detail: 60303ae22b99", \
Version: v1.10.1"""

COMFY_GRAPH = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 777,
            "steps": 25,
            "cfg": 5.5,
            "sampler_name": "euler",
            "scheduler": "karras",
            "denoise": 1.0,
            "model": ["10", 0],
            "positive": ["6", 0],
            "negative": ["7", 0],
            "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "dreamshaper_8.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 640, "height": 960, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a stone tower", "clip": ["10", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "people", "clip": ["10", 1]}},
    "10": {
        "class_type": "LoraLoader",
        "inputs": {
            "lora_name": "ink.safetensors",
            "strength_model": 0.7,
            "strength_clip": 0.6,
            "model": ["4", 0],
            "clip": ["4", 1],
        },
    },
}


def test_a1111() -> None:
    recipe = find_recipe({"parameters": A1111})
    assert recipe is not None
    assert recipe.prompt == "masterpiece, (red fox:1.2), , forest \nsecond line"
    assert recipe.negative_prompt == "blurry, lowres\nworst quality"
    assert (recipe.steps, recipe.sampler, recipe.schedule, recipe.guidance) == (28, "DPM++ 2M", "Karras", 6.5)
    assert (recipe.seed, recipe.width, recipe.height) == (3141592653, 832, 1216)
    assert (recipe.base_model, recipe.tool) == ("sd_xl_base_1.0", "A1111")
    assert recipe.loras == [
        RecipeLora(name="Ink Style", weight=0.8, sha256="9f86d081884c"),
        RecipeLora(name="detail", weight=0.25, text_encoder_weight=0.5, sha256="60303ae22b99"),
    ]
    assert recipe.raw == A1111


def test_a1111_of_old_puts_the_schedule_into_the_sampler() -> None:
    recipe = read_a1111("cat\nSteps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 1, Size: 512x512")
    assert recipe is not None
    assert (recipe.sampler, recipe.schedule) == ("DPM++ 2M", "Karras")
    recipe = read_a1111("cat\nSteps: 20, Sampler: DPM++ 2M Beta, CFG scale: 7, Seed: 1, Size: 512x512")
    assert recipe is not None
    assert (recipe.sampler, recipe.schedule) == ("DPM++ 2M", "Beta")


@pytest.mark.parametrize("with_workflow", [True, False])
def test_comfyui_with_and_without_workflow(with_workflow: bool) -> None:
    texts = {"prompt": json.dumps(COMFY_GRAPH)}
    if with_workflow:
        texts["workflow"] = json.dumps({"links": [], "nodes": []})
    recipe = find_recipe(texts)
    assert recipe is not None
    assert (recipe.prompt, recipe.negative_prompt) == ("a stone tower", "people")
    assert (recipe.seed, recipe.steps, recipe.guidance) == (777, 25, 5.5)
    assert (recipe.sampler, recipe.schedule) == ("euler", "karras")
    assert (recipe.width, recipe.height) == (640, 960)
    assert (recipe.base_model, recipe.tool) == ("dreamshaper_8.safetensors", "ComfyUI")
    assert recipe.loras == [RecipeLora(name="ink.safetensors", weight=0.7, text_encoder_weight=0.6)]


def test_invokeai() -> None:
    found = {
        "positive_prompt": "a lighthouse",
        "negative_prompt": "fog",
        "width": 512,
        "height": 768,
        "seed": 99,
        "cfg_scale": 7.5,
        "steps": 30,
        "scheduler": "euler_a",
        "model": {"key": "k", "hash": "blake3:aa", "name": "stable-diffusion-v1-5", "base": "sd-1"},
        "loras": [{"model": {"key": "k", "hash": "sha256:" + "ab" * 32, "name": "ink"}, "weight": 0.75}],
    }
    recipe = find_recipe({"invokeai_metadata": json.dumps(found)})
    assert recipe is not None
    assert (recipe.prompt, recipe.negative_prompt, recipe.tool) == ("a lighthouse", "fog", "InvokeAI")
    assert (recipe.seed, recipe.steps, recipe.guidance, recipe.sampler) == (99, 30, 7.5, "euler_a")
    assert (recipe.width, recipe.height, recipe.base_model) == (512, 768, "stable-diffusion-v1-5")
    assert recipe.loras == [RecipeLora(name="ink", weight=0.75, sha256="ab" * 32)]


def test_invokeai_of_old() -> None:
    recipe = find_recipe({"Dream": '"a castle [ruins]" -s 50 -S 1234 -W 512 -H 640 -C 7.5 -A k_lms'})
    assert recipe is not None
    assert (recipe.prompt, recipe.negative_prompt) == ("a castle", "ruins")
    assert (recipe.seed, recipe.steps, recipe.width, recipe.height) == (1234, 50, 512, 640)


def test_fooocus() -> None:
    found = {
        "base_model": "juggernautXL",
        "base_model_hash": "aeb7e9e689",
        "guidance_scale": 4,
        "loras": [["sd_xl_offset", 0.1, "8567cea543"]],
        "negative_prompt": "ugly",
        "prompt": "a red car",
        "resolution": "(896, 1152)",
        "sampler": "dpmpp_2m_sde_gpu",
        "scheduler": "karras",
        "seed": "5511",
        "sharpness": 2,
        "steps": 30,
        "version": "Fooocus v2.5.5",
    }
    recipe = find_recipe({"parameters": json.dumps(found)})
    assert recipe is not None
    assert (recipe.prompt, recipe.negative_prompt, recipe.tool) == ("a red car", "ugly", "Fooocus")
    assert (recipe.seed, recipe.steps, recipe.guidance) == (5511, 30, 4)
    assert (recipe.width, recipe.height, recipe.base_model) == (896, 1152, "juggernautXL")
    assert recipe.loras == [RecipeLora(name="sd_xl_offset", weight=0.1, sha256="8567cea543")]


def test_novelai() -> None:
    comment = {
        "sampler": "k_euler",
        "seed": 77,
        "steps": 28,
        "scale": 11,
        "uc": "bad hands",
        "width": 512,
        "height": 768,
    }
    recipe = find_recipe(
        {
            "Title": "AI generated image",
            "Description": "a knight",
            "Software": "NovelAI",
            "Source": "Stable Diffusion 1D44365E",
            "Comment": json.dumps(comment),
        }
    )
    assert recipe is not None
    assert (recipe.prompt, recipe.negative_prompt, recipe.tool) == ("a knight", "bad hands", "NovelAI")
    assert (recipe.seed, recipe.steps, recipe.guidance, recipe.sampler) == (77, 28, 11, "k_euler")
    assert (recipe.width, recipe.height, recipe.base_model) == (512, 768, "Stable Diffusion")


def test_swarmui() -> None:
    found = {
        "sui_image_params": {
            "prompt": "a fjord",
            "seed": 5,
            "steps": 20,
            "cfgscale": 7,
            "loras": ["ink"],
            "loraweights": ["0.4"],
        }
    }
    recipe = find_recipe({"parameters": json.dumps(found)})
    assert recipe is not None
    assert (recipe.prompt, recipe.seed, recipe.tool) == ("a fjord", 5, "SwarmUI")
    assert recipe.loras == [RecipeLora(name="ink", weight=0.4)]


@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le"])
def test_user_comments_in_either_byte_order(encoding: str) -> None:
    assert decode_user_comment(b"UNICODE\0" + A1111.encode(encoding)) == A1111


OWN = Recipe(
    prompt='a fox, in snow: "quiet"',
    negative_prompt="blurry, dark",
    seed=123,
    steps=30,
    sampler="DPM++ 2M",
    schedule="Karras",
    guidance=7.5,
    width=512,
    height=768,
    base_model="VisionSuit Demo, v1",
    tool="VisionSuit 0.1",
    loras=[
        RecipeLora(name="Ink: bold", weight=0.8, sha256="ab" * 32, model_id="m1"),
        RecipeLora(name="Glow", weight=-0.35, text_encoder_weight=0.5),
    ],
)


def test_our_own_text_reads_back_as_a1111() -> None:
    again = read_a1111(to_a1111(OWN))
    assert again is not None
    same = {
        "prompt",
        "negative_prompt",
        "seed",
        "steps",
        "sampler",
        "schedule",
        "guidance",
        "width",
        "height",
        "base_model",
        "tool",
    }
    assert again.model_dump(include=same) == OWN.model_dump(include=same)
    assert [(lora.name, lora.weight, lora.text_encoder_weight, lora.sha256) for lora in again.loras] == [
        ("Ink bold", 0.8, None, "ab" * 6),
        ("Glow", -0.35, 0.5, None),
    ]


def test_our_own_json_is_complete_and_counts_first() -> None:
    texts = own_texts(OWN)
    assert find_recipe(texts) == OWN
    assert "<lora:Ink bold:0.8>" in texts["parameters"]
    assert find_recipe({"parameters": texts["parameters"]}) is not None


words = st.text(
    st.characters(codec="utf-8", exclude_characters="<>\0", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=60
)


@settings(max_examples=200, deadline=None)
@given(
    prompt=words,
    negative=words,
    seed=st.integers(0, 2**32 - 1),
    steps=st.integers(1, 200),
    weight=st.floats(-2, 2).map(lambda value: round(value, 2)),
    model=words,
)
def test_round_trip_of_any_words(prompt: str, negative: str, seed: int, steps: int, weight: float, model: str) -> None:
    recipe = Recipe(
        prompt=" ".join(prompt.split()).removeprefix("Negative prompt:").strip(),
        negative_prompt=" ".join(negative.split()),
        seed=seed,
        steps=steps,
        sampler="Euler",
        width=512,
        height=512,
        base_model=model.strip() or "m",
        loras=[RecipeLora(name="x", weight=weight)],
    )
    again = read_a1111(to_a1111(recipe))
    assert again is not None
    assert (again.prompt, again.negative_prompt, again.seed, again.steps) == (
        recipe.prompt,
        recipe.negative_prompt,
        seed,
        steps,
    )
    assert again.base_model == recipe.base_model
    assert again.loras[0].weight == pytest.approx(weight)


@pytest.mark.parametrize(
    "texts",
    [
        {"parameters": "just some words"},
        {"parameters": "x" * 5_000_000},
        {"parameters": "<lora:" * 100_000 + "\nSteps: 1, Sampler: a"},
        {"parameters": "a\n" + "Steps: 1, " * 50_000},
        {"parameters": "{" * 100_000},
        {"prompt": "[" * 100_000, "workflow": "{}"},
        {"prompt": json.dumps({"1": 5, "2": {"inputs": 3, "class_type": []}}), "workflow": "[]"},
        {
            "prompt": json.dumps(
                {
                    str(n): {
                        "class_type": "KSampler",
                        "inputs": {"sampler_name": "e", "steps": 1, "cfg": 1, "positive": [str(n + 1), 0]},
                    }
                    for n in range(3000)
                }
            )
        },
        {"Dream": '"' + " " * 100_000},
        {"Dream": '"a" ' + " -a" * 2600},
        {"Comment": "[]", "Description": "", "Source": ""},
        {"Comment": '{"sampler": {}}', "Description": "x", "Source": " " * 100_000},
        {"visionsuit": "[1]"},
        {"visionsuit": '{"recipe": {"loras": [' + '{"name":"a"},' * 999 + '{"name":"a"}]}}'},
        {"invokeai_metadata": '{"scheduler": [], "model": 7, "loras": [3]}'},
        {"sd-metadata": '{"image": {"sampler": "a", "prompt": 5}}'},
    ],
)
@pytest.mark.timeout(10)
def test_hostile_texts_yield_a_recipe_or_none_quickly(texts: dict[str, str]) -> None:
    recipe = find_recipe(texts)
    assert recipe is None or isinstance(recipe, Recipe)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
        ["inputs", "class_type", "steps", "cfg", "sampler_name", "prompt", "loras", "model", "seed", "recipe", "image",
         "scheduler", "sampler", "name", "width"]), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    key=st.sampled_from(["parameters", "prompt", "visionsuit", "invokeai_metadata", "sd-metadata", "Comment"]),
    value=json_values,
)
def test_any_json_yields_a_recipe_or_none(key: str, value: object) -> None:
    texts = {key: json.dumps(value), "Description": "d", "Source": "s"}
    recipe = find_recipe(texts)
    assert recipe is None or json.dumps(recipe.model_dump(), allow_nan=False)


def test_numbers_out_of_reach_are_left_out() -> None:
    recipe = Recipe(seed=2**70, steps="many", guidance=float("inf"), width=-5)  # type: ignore[arg-type]
    assert (recipe.seed, recipe.steps, recipe.guidance, recipe.width) == (None, None, None, None)


def test_what_a_picture_began_with_is_read_back() -> None:
    begun = Recipe(prompt="a cat", steps=20, sampler="Euler", seed=1, strength=0.6, masked=True, mask_blur=3.0)
    again = read_a1111(to_a1111(begun))
    assert again is not None
    assert (again.strength, again.masked, again.mask_blur, again.hires_scale) == (0.6, True, 3.0, None)
    larger = Recipe(prompt="a cat", steps=20, sampler="Euler", seed=1, hires_scale=1.5, hires_strength=0.4)
    text = to_a1111(larger.model_copy(update={"variation_seed": 9, "variation_strength": 0.25}))
    again = read_a1111(text)
    assert again is not None
    assert (again.hires_scale, again.hires_strength, again.strength) == (1.5, 0.4, None)
    assert (again.variation_seed, again.variation_strength) == (9, 0.25)
