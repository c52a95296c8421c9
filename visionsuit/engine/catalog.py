"""What a base model says about itself, for pickers and limits: a diffusers folder, or a checkpoint in one file. No
torch, no weights.

A `visionsuit.json` beside `model_index.json` may set `label`, `description`, `default` (width, height, steps,
guidance, sampler, schedule), `sizes`, `min_size`, `max_size`, `size_step`, `prompt_tokens`, `suggestions`;
what it leaves out follows from the model's configs. A checkpoint has its own in the `.json` of its name.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from visionsuit.engine.base import SCHEDULES, Ability, BaseModelRef, Family, ModelUnloadable, samplers_for
from visionsuit.engine.checkpoints import NONSENSE, SUFFIX, Checkpoint, beside, list_checkpoints, read_checkpoint
from visionsuit.engine.whole_kinds import WHOLE, WholeKind, check_whole

#: Families that the engine renders; others are listed, with the reason.
RENDERABLE = frozenset({Family.SD1, Family.SD2, Family.SDXL, Family.SD3})
PIPELINES = {
    "StableDiffusionPipeline": Family.SD1,
    "StableDiffusionXLPipeline": Family.SDXL,
    "StableDiffusionInpaintPipeline": Family.SD1,
    "StableDiffusionXLInpaintPipeline": Family.SDXL,
    "StableDiffusion3Pipeline": Family.SD3,
    "FluxPipeline": Family.FLUX,
}
_GUIDANCE = {Family.SDXL: 6.0, Family.SD3: 5.0}
_SDXL_SIZES = ((1024, 1024), (896, 1152), (1152, 896), (832, 1216), (1216, 832), (768, 1344), (1344, 768))


@dataclass(frozen=True, slots=True)
class RenderDefaults:
    """Pixels, steps, guidance scale, and keys of SAMPLERS and SCHEDULES."""

    width: int
    height: int
    steps: int
    guidance: float
    sampler: str
    schedule: str


@dataclass(frozen=True, slots=True)
class BaseModelInfo:
    """A base model as a person meets it. `folder` may be a checkpoint in one file; sizes in pixels; `prompt_tokens` is
    what one prompt chunk holds."""

    folder: Path
    key: str
    label: str
    description: str
    family: Family
    default: RenderDefaults
    sizes: tuple[tuple[int, int], ...]
    min_size: int
    max_size: int
    size_step: int
    prompt_tokens: int
    prediction_type: str
    suggestions: tuple[str, ...] = ()
    weights_bytes: int = 0
    abilities: tuple[Ability, ...] = tuple(Ability)

    @property
    def ref(self) -> BaseModelRef:
        return BaseModelRef(key=self.key, path=self.folder, family=self.family)

    def as_json(self) -> dict[str, Any]:
        """The public part: no path, no key."""
        shape = asdict(self)
        for private in ("folder", "key", "prediction_type", "weights_bytes"):
            del shape[private]
        return shape | {
            "family": self.family.value,
            "sizes": [list(size) for size in self.sizes],
            "abilities": [one.value for one in self.abilities],
        }


def list_base_models(models_dir: Path) -> list[Path]:
    """What in `models_dir` looks like a diffusers folder or a checkpoint, by name."""
    if not models_dir.is_dir():
        return []
    folders = [entry.parent for entry in models_dir.glob("*/model_index.json")]
    return sorted([*folders, *list_checkpoints(models_dir)])


def content_key(folder: Path) -> str:
    """Identifies what the folder or checkpoint holds, for caches: hash over `model_index.json` and every file's
    relative name, size and modification time. Touching a file gives another key, which costs a reload and never a wrong
    picture.

    Raises:
        ModelUnloadable: it is not there.
    """
    digest = hashlib.sha256()
    try:
        if is_checkpoint(folder):
            for file in (folder, *beside(folder)):
                stat = file.stat()
                digest.update(f"{file.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
            return digest.hexdigest()[:32]
        digest.update((folder / "model_index.json").read_bytes())
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                stat = file.stat()
                digest.update(f"{file.relative_to(folder).as_posix()}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    except OSError as error:
        raise ModelUnloadable(f"The base model in {folder.name} cannot be read: {error.strerror or error}.") from error
    return digest.hexdigest()[:32]


def is_checkpoint(path: Path) -> bool:
    """Whether a base model is one file."""
    return path.is_file() or (path.suffix.lower() == SUFFIX and not path.is_dir())


def read_base_model(folder: Path) -> BaseModelInfo:
    """Describe the diffusers folder or checkpoint.

    Raises:
        ModelUnloadable: it is neither, of an architecture that is not rendered here, or its files are broken.
    """
    key = content_key(folder)
    try:
        return _read_base_model(folder, key)
    except NONSENSE as error:
        raise ModelUnloadable(f"The configuration of {folder.name} makes no sense: {error}.") from error


@lru_cache(maxsize=64)
def _read_base_model(folder: Path, key: str) -> BaseModelInfo:
    if is_checkpoint(folder):
        return _describe_checkpoint(read_checkpoint(folder), key)
    index = _read_json(folder, "model_index.json")
    if index is None:
        raise ModelUnloadable(f"{folder.name} is no diffusers folder: it has no model_index.json.")
    unet = _read_json(folder, "unet/config.json")
    family = _family(index, unet or {})
    if index.get("_class_name") in WHOLE:
        return _describe_whole(folder, key, family, WHOLE[index["_class_name"]])
    if family not in RENDERABLE:
        raise ModelUnloadable(
            f"{folder.name} is a {index.get('_class_name', 'pipeline of unknown class')}; "
            "the generator renders Stable Diffusion 1.x, 2.x, XL and 3, and some others that are rendered whole."
        )
    denoiser = "unet"
    if family is Family.SD3:
        denoiser, unet = "transformer", _read_json(folder, "transformer/config.json")
    vae, text = _read_json(folder, "vae/config.json"), _read_json(folder, "text_encoder/config.json")
    if unet is None or vae is None or text is None:
        raise ModelUnloadable(f"{folder.name} lacks the configuration of its UNet, VAE or text encoder.")
    if not renders_pictures(unet.get("in_channels"), vae.get("latent_channels", 4)):
        raise ModelUnloadable(f"{folder.name} is made for another task than painting pictures.")
    for part in (denoiser, "vae", "text_encoder"):
        if not any((folder / part).glob("*.safetensors")):
            raise ModelUnloadable(f"{folder.name} has no safetensors weights in {part}/.")
    scheduler = _read_json(folder, "scheduler/scheduler_config.json") or {}
    tokenizer = _read_json(folder, "tokenizer/tokenizer_config.json") or {}
    if scheduler.get("use_dynamic_shifting") and family is not Family.SD3:
        raise ModelUnloadable(f"{folder.name} shifts its timesteps by the picture's size, which is not known here.")
    sample, factor = unet.get("sample_size"), _factor(vae)
    patch = _positive(unet.get("patch_size"), 1) if family is Family.SD3 else 1
    positions = _positive(unet.get("pos_embed_max_size"), 10**5) if family is Family.SD3 else 10**5
    return _assemble(
        folder,
        key,
        family,
        label=folder.name,
        side=factor * _positive(sample, 64),
        step=math.lcm(8, factor * patch),
        most=positions * factor * patch,
        tokens=min(
            _positive(tokenizer.get("model_max_length"), 77), _positive(text.get("max_position_embeddings"), 77)
        ),
        prediction_type=str(scheduler.get("prediction_type", "epsilon")),
        weights_bytes=sum(file.stat().st_size for file in folder.rglob("*.safetensors")),
        own=_read_json(folder, "visionsuit.json") or {},
    )


def _describe_whole(folder: Path, key: str, family: Family, kind: WholeKind) -> BaseModelInfo:
    check_whole(folder)
    scheduler = _read_json(folder, "scheduler/scheduler_config.json") or {}
    vae = _read_json(folder, "vae/config.json") or {}
    denoiser = _read_json(folder, "transformer/config.json") or _read_json(folder, "unet/config.json") or {}
    sample, factor = denoiser.get("sample_size"), _factor(vae)
    own = _read_json(folder, "visionsuit.json") or {}
    own = {**own, "default": {**kind.defaults(scheduler), **(own.get("default") or {})}}
    info = _assemble(
        folder,
        key,
        family,
        label=folder.name,
        side=kind.side or factor * (_positive(sample, 0) or 1024 // factor),
        step=math.lcm(kind.size_step, 2 * factor),
        tokens=77,
        prediction_type=str(scheduler.get("prediction_type", "epsilon")),
        weights_bytes=sum(file.stat().st_size for file in folder.rglob("*.safetensors")),
        own=own,
    )
    return replace(info, abilities=kind.abilities)


def _describe_checkpoint(checkpoint: Checkpoint, key: str) -> BaseModelInfo:
    return _assemble(
        checkpoint.path,
        key,
        checkpoint.family,
        label=checkpoint.path.stem,
        side=checkpoint.side,
        step=math.lcm(8, _factor(checkpoint.configs["vae"])),
        tokens=min(77, checkpoint.configs["text_encoder"]["max_position_embeddings"]),
        prediction_type=checkpoint.prediction_type,
        weights_bytes=checkpoint.weights_bytes,
        own=checkpoint.own,
    )


def _factor(vae: Mapping[str, Any]) -> int:
    """Pixels per latent."""
    levels = len(vae.get("block_out_channels") or vae.get("encoder_block_out_channels") or (0, 0, 0, 0))
    if not 1 <= levels <= 8:
        raise ValueError(f"a VAE of {levels} levels")
    return 2 ** (levels - 1)


def _assemble(
    folder: Path,
    key: str,
    family: Family,
    *,
    label: str,
    side: int,
    step: int,
    most: int = 10**5,
    tokens: int,
    prediction_type: str,
    weights_bytes: int,
    own: Mapping[str, Any],
) -> BaseModelInfo:
    sizes = _sizes(own.get("sizes")) or (_SDXL_SIZES if side == 1024 else _default_sizes(side, step))
    suggestions = own.get("suggestions")
    return BaseModelInfo(
        folder=folder,
        key=key,
        label=_text(own.get("label")) or label,
        description=_text(own.get("description")),
        family=family,
        default=_defaults(own.get("default"), side, family),
        sizes=sizes,
        min_size=_positive(own.get("min_size"), max(step, side // 4)),
        max_size=_positive(own.get("max_size"), min(most, side * 2)),
        size_step=_positive(own.get("size_step"), step),
        prompt_tokens=_positive(own.get("prompt_tokens"), tokens),
        prediction_type=prediction_type,
        suggestions=tuple(entry for entry in suggestions if isinstance(entry, str))
        if isinstance(suggestions, list)
        else (),
        weights_bytes=weights_bytes,
    )


def renders_pictures(in_channels: Any, latent_channels: Any) -> bool:
    """Whether a UNet takes a latent, or, made for inpainting, a latent, a mask and a masked latent."""
    return in_channels in (latent_channels, 2 * latent_channels + 1)


def _family(index: dict[str, Any], unet: dict[str, Any]) -> Family:
    family = PIPELINES.get(str(index.get("_class_name")), Family.OTHER)
    if family is Family.SD1 and unet.get("cross_attention_dim") == 1024:
        return Family.SD2
    return family


def _defaults(own: Any, side: int, family: Family) -> RenderDefaults:
    own = own if isinstance(own, dict) else {}
    guidance = own.get("guidance")
    sampler, schedule = own.get("sampler"), own.get("schedule")
    return RenderDefaults(
        width=_positive(own.get("width"), side),
        height=_positive(own.get("height"), side),
        steps=_positive(own.get("steps"), 25),
        guidance=float(guidance)
        if isinstance(guidance, int | float) and math.isfinite(guidance)
        else _GUIDANCE.get(family, 7.0),
        sampler=sampler if sampler in samplers_for(family) else ("euler" if family is Family.SD3 else "dpmpp_2m"),
        schedule=schedule if schedule in SCHEDULES else ("default" if family is Family.SD3 else "karras"),
    )


def _default_sizes(side: int, step: int) -> tuple[tuple[int, int], ...]:
    long, tall = (side * 3 // 2) // step * step, (side * 5 // 4) // step * step
    return ((side, side), (side, tall), (tall, side), (side, long), (long, side))


def _sizes(own: Any) -> tuple[tuple[int, int], ...]:
    if not isinstance(own, list):
        return ()
    return tuple(
        (size[0], size[1])
        for size in own
        if isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)
    )


def _positive(value: Any, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**6 else default


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _read_json(folder: Path, name: str) -> dict[str, Any] | None:
    path = folder / name
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnloadable(f"{name} of the base model in {folder.name} cannot be read.") from error
    return content if isinstance(content, dict) else {}
