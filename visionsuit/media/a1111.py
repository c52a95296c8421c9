"""The `parameters` text of AUTOMATIC1111 and its many relatives: read, and written for our own pictures.

The shape: prompt lines, then a line that begins `Negative prompt:`, then one line `Steps: 20, Sampler: Euler, ...`
of comma-separated `Key: value`, where a value that holds commas or colons is a JSON string.
"""

import json
import re
from collections.abc import Mapping

from visionsuit.media.recipe import MAX_LORAS, Recipe, RecipeLora

_NEGATIVE = "Negative prompt:"
_PAIR = re.compile(r'\s*([A-Za-z][\w \-/]{0,60}):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
_TAG = re.compile(r"<(?:lora|lyco):([^<>:]{1,200})(?::([^<>:]{1,20}))?(?::([^<>:]{1,20}))?>")
_SIZE = re.compile(r"(\d{1,6})\s*x\s*(\d{1,6})")
_SCHEDULES = ("Karras", "Exponential", "Beta", "Normal", "Trailing")


def read_a1111(text: str) -> Recipe | None:
    """The recipe in `text`, or None if it does not have this shape."""
    lines = text.strip().split("\n")
    settings: dict[str, str] = {}
    at = len(lines)
    # The settings are the last line that looks like some; tools append lines of their own behind them.
    for index in range(len(lines) - 1, max(-1, len(lines) - 20), -1):
        pairs = _read_pairs(lines[index])
        if len(pairs.keys() & {"Steps", "Sampler", "Seed", "CFG scale", "Size", "Model"}) >= 3:
            settings, at = pairs, index
            break
    if not settings:
        return None
    prompt, negative = _split_prompts(lines[:at])
    hashes = _read_hashes(settings)
    loras = _read_tags(prompt, hashes)
    sampler, schedule = settings.get("Sampler"), settings.get("Schedule type")
    if sampler and not schedule:
        # Before 2024 the schedule was the last word of the sampler: "DPM++ 2M Karras".
        name, _, last = sampler.rpartition(" ")
        if name and last in _SCHEDULES:
            sampler, schedule = name, last
    size = _SIZE.match(settings.get("Size", ""))
    scale, strength = settings.get("Hires upscale"), settings.get("Denoising strength")
    # A1111 has one strength: the second pass's, where there is one.
    return Recipe(
        prompt=_without_tags(prompt),
        negative_prompt=negative,
        seed=settings.get("Seed"),
        steps=settings.get("Steps"),
        sampler=sampler,
        schedule=None if schedule in (None, "Automatic") else schedule,
        guidance=settings.get("CFG scale") or settings.get("Distilled CFG Scale"),
        width=size.group(1) if size else None,
        height=size.group(2) if size else None,
        base_model=settings.get("Model") or settings.get("Model hash"),
        tool=_tool_of(settings.get("Version", "")),
        loras=loras,
        strength=None if scale else strength,
        masked=True if "Mask blur" in settings else None,
        mask_blur=settings.get("Mask blur"),
        hires_scale=scale,
        hires_strength=strength if scale else None,
        hires_steps=settings.get("Hires steps"),
        variation_seed=settings.get("Variation seed"),
        variation_strength=settings.get("Variation seed strength"),
        raw=text,
    )


def to_a1111(recipe: Recipe) -> str:
    """`recipe` as text that A1111-compatible tools read back; `read_a1111` returns the same facts."""
    tags = [_tag(lora) for lora in recipe.loras]
    lines = [" ".join([part for part in (recipe.prompt.strip(), *tags) if part])]
    if recipe.negative_prompt.strip():
        lines.append(f"{_NEGATIVE} {recipe.negative_prompt.strip()}")
    hashes = ", ".join(f"{_plain(lora.name)}: {lora.sha256[:12]}" for lora in recipe.loras if lora.sha256)
    size = f"{recipe.width}x{recipe.height}" if recipe.width and recipe.height else None
    settings = {
        "Steps": recipe.steps,
        "Sampler": recipe.sampler,
        "Schedule type": recipe.schedule,
        "CFG scale": _plain_number(recipe.guidance),
        "Seed": recipe.seed,
        "Size": size,
        "Model": recipe.base_model,
        "Variation seed": recipe.variation_seed,
        "Variation seed strength": _plain_number(recipe.variation_strength),
        "Denoising strength": _plain_number(recipe.hires_strength if recipe.strength is None else recipe.strength),
        "Mask blur": _plain_number(recipe.mask_blur),
        "Hires upscale": _plain_number(recipe.hires_scale),
        "Hires steps": recipe.hires_steps,
        "Hires upscaler": None if recipe.hires_scale is None else "Lanczos",
        "Lora hashes": hashes or None,
        "Version": recipe.tool,
    }
    lines.append(", ".join(f"{key}: {_quote(str(value))}" for key, value in settings.items() if value is not None))
    return "\n".join(lines)


def _plain_number(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"


def _read_pairs(line: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for key, value in _PAIR.findall(line[:100_000]):
        if value.startswith('"'):
            try:
                value = str(json.loads(value))
            except ValueError:
                value = value.strip('"')
        pairs.setdefault(key.strip(), value.strip())
    return pairs


def _split_prompts(lines: list[str]) -> tuple[str, str]:
    for index, line in enumerate(lines):
        if line.lstrip().startswith(_NEGATIVE):
            negative = [line.lstrip().removeprefix(_NEGATIVE), *lines[index + 1 :]]
            return "\n".join(lines[:index]).strip(), "\n".join(negative).strip()
    return "\n".join(lines).strip(), ""


def _read_hashes(settings: Mapping[str, str]) -> dict[str, str]:
    hashes: dict[str, str] = {}
    for part in settings.get("Lora hashes", "").split(","):
        name, _, digest = part.rpartition(":")
        if name.strip() and re.fullmatch(r"[0-9a-fA-F]{8,64}", digest.strip()):
            hashes[name.strip()] = digest.strip().lower()
    return hashes


def _read_tags(prompt: str, hashes: Mapping[str, str]) -> list[RecipeLora]:
    return [
        RecipeLora(
            name=match.group(1).strip(),
            # The text encoder's weight comes first; alone it is both.
            weight=_weight(match.group(3) or match.group(2)),
            text_encoder_weight=match.group(2) if match.group(3) else None,
            sha256=hashes.get(match.group(1).strip()),
        )
        for match in _TAG.finditer(prompt)
    ][:MAX_LORAS]


def _weight(text: str | None) -> float:
    try:
        return float(text) if text else 1.0
    except ValueError:
        return 1.0


def _without_tags(prompt: str) -> str:
    return re.sub(r"[ \t]{2,}", " ", _TAG.sub("", prompt)).strip() if "<" in prompt else prompt


def _tag(lora: RecipeLora) -> str:
    first = "" if lora.text_encoder_weight is None else f"{lora.text_encoder_weight:g}:"
    return f"<lora:{_plain(lora.name)}:{first}{lora.weight:g}>"


def _plain(name: str) -> str:
    """A name that neither a tag nor a list of hashes mistakes for their own signs."""
    return re.sub(r"[<>:,\s]+", " ", name).strip() or "lora"


def _quote(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:\n"]', value) else value


def _tool_of(version: str) -> str:
    lowered = version.lower()
    if lowered.startswith("visionsuit"):
        return version
    if "comfyui" in lowered:
        return "ComfyUI"
    if "fooocus" in lowered:
        return "Fooocus"
    return "A1111"
