"""The LoRAs of a request: from cards to files, and whether they fit the base model."""

import json
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any

from visionsuit.core.errors import InvalidInput, NotFound, Unavailable
from visionsuit.core.ids import is_id
from visionsuit.engine.base import IncompatibleLora, ModelUnloadable
from visionsuit.engine.compat import check_lora
from visionsuit.generation.order import LoraOrder
from visionsuit.generation.tables import BaseModel
from visionsuit.modelcards.queries import get_version
from visionsuit.modelcards.tables import ModelCard, ModelType, ModelVersion
from visionsuit.runtime import Ctx
from visionsuit.storage.base import Bucket, Storage

MIXABLE = (ModelType.LORA, ModelType.LYCORIS)
_MAX_HEADER_BYTES = 100_000_000


class LoraNotFound(InvalidInput):
    code = "lora_not_found"


class NotALora(InvalidInput):
    code = "not_a_lora"


class BaseModelBroken(Unavailable):
    code = "base_model_unloadable"


def resolve_mix(
    ctx: Ctx, loras: tuple[LoraOrder, ...], base: BaseModel, *, field: str | None = None
) -> list[dict[str, Any]]:
    """Cards the actor sees -> what the request keeps of each, JSON, with the file's SHA-256. Every file is known to
    fit `base` afterwards.

    Raises:
        LoraNotFound, NotALora, IncompatibleLora: with `field`, or else `loras.<n>.model_id`.
    """
    mix = []
    for number, lora in enumerate(loras):
        place = field or f"loras.{number}.model_id"
        card, version = find_lora(ctx, lora.model_id, lora.version_id, number)
        if card.type not in MIXABLE:
            raise NotALora(f"“{card.title}” is a {card.type}; only LoRAs can be mixed in.", field=place)
        folder = ctx.settings.models_dir / base.folder
        problem = find_problem(ctx.storage, version.object_id, folder, base.key)  # type: ignore[arg-type]  # by identity
        if problem:
            raise IncompatibleLora(
                f"“{card.title}” cannot be used with {base.label}. {problem}",
                field=place,
                hint="Take it out of the mix, or choose the base model it was made for.",
            )
        mix.append(
            {
                "model_id": card.public_id,
                "version_id": version.public_id,
                "title": card.title,
                "trigger": card.trigger,
                "weight": float(lora.weight),
                "text_encoder_weight": None if lora.text_encoder_weight is None else float(lora.text_encoder_weight),
                "sha256": version.sha256,
                "file_name": version.file_name,
            }
        )
    return mix


def find_lora(ctx: Ctx, model_id: str, version_id: str | None, number: int) -> tuple[ModelCard, ModelVersion]:
    """Card and version by public ids, as far as the actor sees them.

    Raises:
        LoraNotFound
    """
    field = f"loras.{number}.model_id"
    if not is_id(model_id) or not (version_id is None or is_id(version_id)):
        raise LoraNotFound("There is no such model here, or it is not shared with you.", field=field)
    try:
        return get_version(ctx, model_id, version_id)
    except NotFound as error:
        raise LoraNotFound(error.message, field=field) from error


@lru_cache(maxsize=2048)
def find_problem(storage: Storage, object_id: str, base_folder: Path, base_key: str) -> str | None:
    """Why the stored file does not work with the base model, or None. Content under an object id or key never
    changes, so one look is enough.

    Raises:
        StorageUnavailable: nothing can be said now.
        BaseModelBroken: the base model's folder is not what it was.
    """
    try:
        check_lora(_read_header(storage, object_id), base_folder)
    except IncompatibleLora as error:
        return error.message
    except ModelUnloadable as error:
        raise BaseModelBroken(error.message) from error
    return None


def _read_header(storage: Storage, object_id: str) -> dict[str, Any]:
    prefix = b"".join(storage.read(Bucket.MODELS, object_id, 0, 8))
    length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
    if not 2 <= length <= _MAX_HEADER_BYTES:
        raise IncompatibleLora("Its file is no safetensors file.")
    try:
        header = json.loads(b"".join(storage.read(Bucket.MODELS, object_id, 8, 8 + length)))
    except (ValueError, RecursionError) as error:
        raise IncompatibleLora("Its file has a header that cannot be read.") from error
    if not isinstance(header, dict):
        raise IncompatibleLora("Its file has a header that cannot be read.")
    return header
