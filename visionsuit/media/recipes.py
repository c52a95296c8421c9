"""Find the recipe in what a picture carries: PNG texts and the EXIF user comment. Hostile input is only text.

Our own JSON counts first, then A1111's text, then what sd-parsers knows: ComfyUI, InvokeAI, Fooocus, NovelAI.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from sd_parsers.data import PromptInfo
from sd_parsers.exceptions import ParserError
from sd_parsers.parsers import ComfyUIParser, FooocusParser, InvokeAIParser, NovelAIParser

from visionsuit.media.a1111 import read_a1111, to_a1111
from visionsuit.media.recipe import MAX_LORAS, Recipe, RecipeLora

#: Keyword of our own JSON in a PNG.
OWN_KEYWORD = "visionsuit"
_MAX_PARSED_CHARACTERS = 1024 * 1024
#: The parsers' expressions and walks grow faster than their input: what is longer is no recipe.
_MAX_LENGTHS = {"Source": 300, "Dream": 8_000, "dream": 8_000, "Title": 300, "Software": 300}
_MAX_NODES = 1_000
#: What those parsers raise on input that nobody foresaw.
_PARSER_ERRORS = (ParserError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def own_texts(recipe: Recipe) -> dict[str, str]:
    """PNG texts for a picture of our own: readable by A1111-like tools, and complete for us."""
    own = recipe.model_dump_json(exclude={"raw"}, exclude_none=True)
    return {"parameters": to_a1111(recipe), OWN_KEYWORD: f'{{"version":1,"recipe":{own}}}'}


def find_recipe(texts: Mapping[str, str], comment: str | None = None) -> Recipe | None:
    """The recipe in the `texts` of a PNG or in an EXIF `comment`, or None."""
    known = {key: text for key, text in texts.items() if len(text) <= _MAX_LENGTHS.get(key, _MAX_PARSED_CHARACTERS)}
    if comment and len(comment) <= _MAX_PARSED_CHARACTERS:
        known = {**_split_comment(comment), **known}
    for read in (_read_own, _read_parameters, _read_others):
        try:
            recipe = read(known)
        except (*_PARSER_ERRORS, ValidationError):
            continue
        if recipe is not None:
            return recipe
    return None


def decode_user_comment(value: bytes | str) -> str:
    """Text of EXIF UserComment, whose first eight bytes name the encoding."""
    if isinstance(value, str):
        return value
    code, body = value[:8], value[8:]
    if code == b"UNICODE\0":
        # The standard leaves the byte order open; Latin letters show it by where their zeros are.
        big = body[0::2].count(0) >= body[1::2].count(0)
        return body.decode("utf-16-be" if big else "utf-16-le", "replace")
    known = code in (b"ASCII\0\0\0", b"\0" * 8, b"JIS\0\0\0\0\0")
    return (body if known else value).decode("utf-8", "replace").rstrip("\0")


def _split_comment(comment: str) -> dict[str, str]:
    """A comment is A1111's text, or JSON of a graph or of several texts."""
    texts = {"parameters": comment}
    stripped = comment.strip()
    if stripped.startswith("{"):
        try:
            found = json.loads(stripped)
        except (ValueError, RecursionError):
            return texts
        for key in ("prompt", "workflow", "sui_image_params", "invokeai_metadata", OWN_KEYWORD):
            if isinstance(found, dict) and isinstance(found.get(key), dict):
                texts[key] = json.dumps(found[key])
    return texts


def _read_own(texts: Mapping[str, str]) -> Recipe | None:
    if OWN_KEYWORD not in texts:
        return None
    found = json.loads(texts[OWN_KEYWORD])
    return Recipe.model_validate(found["recipe"])


def _read_parameters(texts: Mapping[str, str]) -> Recipe | None:
    text = texts.get("parameters", "")
    return _read_swarm(texts) or read_a1111(text)


def _read_swarm(texts: Mapping[str, str]) -> Recipe | None:
    source = texts.get("sui_image_params") or texts.get("parameters", "")
    if "sui_image_params" not in source and "sui_image_params" not in texts:
        return None
    found = json.loads(source)
    values = found.get("sui_image_params", found)
    names, weights = _listed(values.get("loras")), _listed(values.get("loraweights"))
    return Recipe(
        prompt=values.get("prompt", ""),
        negative_prompt=values.get("negativeprompt", ""),
        seed=values.get("seed"),
        steps=values.get("steps"),
        sampler=values.get("sampler"),
        schedule=values.get("scheduler"),
        guidance=values.get("cfgscale"),
        width=values.get("width"),
        height=values.get("height"),
        base_model=values.get("model"),
        tool="SwarmUI",
        loras=[
            RecipeLora(name=name, weight=weights[index] if index < len(weights) else 1.0)
            for index, name in enumerate(names[:MAX_LORAS])
        ],
        raw=source,
    )


def _read_others(texts: Mapping[str, str]) -> Recipe | None:
    for read in (_read_comfy, _read_invoke, _read_fooocus, _read_novel):
        try:
            recipe = read(texts)
        except (*_PARSER_ERRORS, ValidationError):
            continue
        if recipe is not None:
            return recipe
    return None


def _read_comfy(texts: Mapping[str, str]) -> Recipe | None:
    if "prompt" not in texts:
        return None
    # ComfyUI writes NaN, which is no JSON but which Python reads.
    graph = {str(key): node for key, node in json.loads(texts["prompt"]).items() if isinstance(node, dict)}
    if len(graph) > _MAX_NODES:
        return None
    info = ComfyUIParser().parse({"prompt": graph, "workflow": {"links": list(_links(graph))}})
    if not info.samplers:
        return None
    nodes = [(str(node.get("class_type")), node.get("inputs")) for node in graph.values()]
    plain = [(kind, inputs) for kind, inputs in nodes if isinstance(inputs, dict)]
    loras = [
        RecipeLora(
            name=inputs["lora_name"],
            weight=inputs.get("strength_model", 1.0),
            text_encoder_weight=inputs.get("strength_clip"),
        )
        for kind, inputs in plain
        if "lora" in kind.lower() and isinstance(inputs.get("lora_name"), str)
    ]
    sizes = [
        inputs for _, inputs in plain if isinstance(inputs.get("width"), int) and isinstance(inputs.get("height"), int)
    ]
    seeds = [inputs.get(key) for _, inputs in plain for key in ("seed", "noise_seed")]
    recipe = _from_info(info, "ComfyUI", loras, texts["prompt"])
    first_size = sizes[0] if sizes else {}
    # sd-parsers takes the first node with a `model` input for the loader, which a LoRA node is not.
    models = [inputs.get(key) for _, inputs in plain for key in ("ckpt_name", "unet_name")]
    return recipe.model_copy(
        update={
            "base_model": next((name for name in models if isinstance(name, str)), None),
            "width": recipe.width or first_size.get("width"),
            "height": recipe.height or first_size.get("height"),
            "seed": recipe.seed if recipe.seed is not None else next((s for s in seeds if type(s) is int), None),
        }
    )


def _links(graph: Mapping[str, Any]) -> Iterator[tuple[int, str, int, str, int, str]]:
    """The graph's edges as a saved workflow lists them; pictures made over its API carry no workflow."""
    for node_id, node in graph.items():
        inputs = node.get("inputs")
        for slot, (name, value) in enumerate(inputs.items() if isinstance(inputs, dict) else ()):
            if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int):
                yield 0, str(value[0]), 0, node_id, slot, "CLIP" if name == "clip" else str(name).upper()


def _read_invoke(texts: Mapping[str, str]) -> Recipe | None:
    if not texts.keys() & {"invokeai_metadata", "sd-metadata", "Dream"}:
        return None
    info = InvokeAIParser().parse(dict(texts))
    raw = next(texts[key] for key in ("invokeai_metadata", "sd-metadata", "Dream") if key in texts)
    loras, model = [], None
    for entry in _listed(info.metadata.get("loras")):
        named = entry.get("model") or entry.get("lora") or {}
        digest = str(named.get("hash") or "").rpartition(":")[2]
        loras.append(
            RecipeLora(
                name=named.get("name") or named.get("model_name"),
                weight=entry.get("weight", 1.0),
                sha256=digest if len(digest) == 64 else None,
            )
        )
    if "invokeai_metadata" in texts:
        described = json.loads(texts["invokeai_metadata"]).get("model") or {}
        model = described.get("name") or described.get("model_name")
    recipe = _from_info(info, "InvokeAI", loras, raw)
    return recipe.model_copy(update={"base_model": recipe.base_model or model})


def _read_fooocus(texts: Mapping[str, str]) -> Recipe | None:
    if not texts.get("parameters", "").lstrip().startswith("{"):
        return None
    info = FooocusParser().parse({"parameters": texts["parameters"]})
    found = json.loads(texts["parameters"])
    loras = [
        RecipeLora(name=entry[0], weight=entry[1], sha256=entry[2] if len(entry) > 2 else None)
        for entry in _listed(found.get("loras"))
        if isinstance(entry, list) and len(entry) >= 2
    ]
    for key, value in found.items():
        if str(key).startswith("lora_combined_") and isinstance(value, str):
            name, _, weight = value.rpartition(":")
            loras.append(RecipeLora(name=name.strip(), weight=weight))
    recipe = _from_info(info, "Fooocus", loras, texts["parameters"])
    size = [int(part) for part in "".join(c if c.isdigit() else " " for c in str(found.get("resolution"))).split()]
    if len(size) == 2:
        recipe = recipe.model_copy(update={"width": size[0], "height": size[1]})
    return recipe


def _read_novel(texts: Mapping[str, str]) -> Recipe | None:
    if not {"Comment", "Description", "Source"} <= texts.keys():
        return None
    info = NovelAIParser().parse(dict(texts))
    comment = json.loads(texts["Comment"])
    recipe = _from_info(info, "NovelAI", [], texts["Comment"])
    return recipe.model_copy(
        update={
            "steps": Recipe(steps=comment.get("steps")).steps,
            "width": Recipe(width=comment.get("width")).width,
            "height": Recipe(height=comment.get("height")).height,
        }
    )


def _from_info(info: PromptInfo, tool: str, loras: list[RecipeLora], raw: str) -> Recipe:
    """What sd-parsers found, in our shape. Of several samplers the first with a prompt counts."""
    sampler = next((sampler for sampler in info.samplers if sampler.prompts), info.samplers[0])
    values = {**info.metadata, **sampler.parameters}
    return Recipe(
        prompt=info.full_prompt,
        negative_prompt=info.full_negative_prompt,
        seed=values.get("seed", values.get("noise_seed")),
        steps=values.get("steps"),
        sampler=sampler.name,
        schedule=values.get("scheduler") if values.get("scheduler") != sampler.name else None,
        guidance=values.get("cfg_scale"),
        width=values.get("width"),
        height=values.get("height"),
        base_model=sampler.model.name or sampler.model.hash if sampler.model else None,
        tool=tool,
        loras=loras[:MAX_LORAS],
        raw=raw,
    )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
