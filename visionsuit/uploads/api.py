"""REST: /api/uploads. Bodies are read as streams; the routes take no form and no file object of the framework."""

from typing import Any

from fastapi import Request

from visionsuit.core.permissions import Permission, require
from visionsuit.galleries.out import gallery_tiles
from visionsuit.galleries.tables import Gallery
from visionsuit.images.out import image_tiles
from visionsuit.images.tables import Image
from visionsuit.modelcards.out import ModelDetail, model_detail
from visionsuit.modelcards.tables import ModelType
from visionsuit.router import CtxDep, ReadCtxDep, Router
from visionsuit.runtime import Ctx
from visionsuit.uploads import drafts, service
from visionsuit.uploads.multipart import boundary_of
from visionsuit.uploads.schemas import DraftIn, DraftOut, FileOut, PublishIn, UploadedImages, draft_out, file_out
from visionsuit.uploads.stream import receive_in_thread, refuse_length
from visionsuit.visibility import Visibility
from visionsuit.web import ActorDep, RuntimeDep

router = Router(prefix="/api/uploads", tags=["uploads"])

#: What a form may weigh beyond its files.
_FORM_BYTES = 1024 * 1024
_TEXT = {"type": "string"}
_FILE = {"type": "string", "format": "binary"}
_COMMON: dict[str, Any] = {
    "description": _TEXT,
    "tags": {"type": "array", "items": _TEXT, "description": "The field is repeated for each tag."},
    "visibility": {"type": "string", "enum": [str(value) for value in Visibility], "default": "private"},
    "adult": {"type": "boolean", "default": False},
}


def _form(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    schema = {"type": "object", "properties": {**properties, **_COMMON}, "required": required}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


_MODEL_FORM = _form(
    {
        "file": {**_FILE, "description": "One .safetensors file, or a zip that holds exactly one."},
        "cover": {**_FILE, "description": "PNG, JPEG or WebP."},
        "title": _TEXT,
        "trigger": {**_TEXT, "description": "The words in a prompt that call the model up."},
        "type": {"type": "string", "enum": [str(value) for value in ModelType]},
        "base_model": {**_TEXT, "description": "Read from the file if left out."},
    },
    ["file", "cover", "title", "trigger"],
)
_IMAGES_FORM = _form(
    {
        "files": {"type": "array", "items": _FILE, "description": "Up to 12 PNG, JPEG or WebP files."},
        "title": {**_TEXT, "description": "For all of them; without it each is named after its file."},
        "gallery_id": {**_TEXT, "description": "One of your galleries."},
        "gallery_title": {**_TEXT, "description": "One of your galleries by title; made if there is none."},
    },
    ["files"],
)
_RAW_BODY = {"requestBody": {"required": True, "content": {"application/octet-stream": {"schema": _FILE}}}}


@router.post("/models", status_code=201, response_model=ModelDetail, openapi_extra=_MODEL_FORM)
async def upload_model(request: Request, runtime: RuntimeDep, actor: ActorDep) -> ModelDetail:
    """A weights file and a cover become a model card. For large files use a draft."""
    require(actor, Permission.ASSETS_UPLOAD)
    boundary = boundary_of(request.headers.get("content-type", ""))
    limits = runtime.settings.limits
    refuse_length(request, limits.weights_bytes + limits.image_bytes + _FORM_BYTES)
    return await receive_in_thread(
        request, lambda blocks: service.upload_model(runtime, actor, blocks, boundary, model_detail)
    )


@router.post("/images", status_code=201, response_model=UploadedImages, openapi_extra=_IMAGES_FORM)
async def upload_images(request: Request, runtime: RuntimeDep, actor: ActorDep) -> UploadedImages:
    """Pictures become image pages, in a gallery if one is named."""
    require(actor, Permission.ASSETS_UPLOAD)
    boundary = boundary_of(request.headers.get("content-type", ""))
    limits = runtime.settings.limits
    refuse_length(request, limits.image_bytes * limits.files_per_upload + _FORM_BYTES)
    return await receive_in_thread(
        request, lambda blocks: service.upload_images(runtime, actor, blocks, boundary, _show_images)
    )


@router.post("/drafts", status_code=201)
def open_draft(ctx: CtxDep, body: DraftIn) -> DraftOut:
    """Announce files; send each with PUT to its `upload_url`, then publish. Kept for a day after the last touch."""
    return draft_out(ctx, drafts.open_draft(ctx, body.kind, body.announced()))


@router.get("/drafts/{draft_id}")
def get_draft(ctx: ReadCtxDep, draft_id: str) -> DraftOut:
    """What of a draft has arrived."""
    require(ctx.actor, Permission.ASSETS_UPLOAD)
    return draft_out(ctx, drafts.get_draft(ctx, draft_id))


@router.put("/drafts/{draft_id}/files/{number}", response_model=FileOut, openapi_extra=_RAW_BODY)
async def put_file(request: Request, runtime: RuntimeDep, actor: ActorDep, draft_id: str, number: int) -> FileOut:
    """The bytes of one file, as they are. Sending it again replaces it."""
    require(actor, Permission.ASSETS_UPLOAD)
    refuse_length(request, runtime.settings.limits.weights_bytes)
    draft, file = await receive_in_thread(
        request, lambda blocks: service.receive_draft_file(runtime, actor, draft_id, number, blocks)
    )
    return file_out(draft, file)


@router.post("/drafts/{draft_id}/publish", status_code=201)
def publish_draft(runtime: RuntimeDep, actor: ActorDep, draft_id: str, body: PublishIn) -> ModelDetail | UploadedImages:
    """All files have arrived: make the card or the image pages. A refusal keeps the draft and its files."""
    require(actor, Permission.ASSETS_UPLOAD)
    values = body.model_dump(exclude_none=True)
    return service.publish_draft(runtime, actor, draft_id, values, model_detail, _show_images)


@router.delete("/drafts/{draft_id}", status_code=204)
def discard_draft(runtime: RuntimeDep, actor: ActorDep, draft_id: str) -> None:
    """Give a draft up, with everything sent so far."""
    require(actor, Permission.ASSETS_UPLOAD)
    service.discard_draft(runtime, actor, draft_id)


def _show_images(ctx: Ctx, images: list[Image], gallery: Gallery | None) -> UploadedImages:
    tiles = gallery_tiles(ctx, [gallery]) if gallery is not None else [None]
    return UploadedImages(items=image_tiles(ctx, images), gallery=tiles[0])
