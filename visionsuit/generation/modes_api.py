"""/api/generations/inputs, /api/generations/sheets, and test sheets of LoRAs."""

from typing import Any

from fastapi import Request, Response

from visionsuit.core.actor import Actor
from visionsuit.core.errors import NotFound
from visionsuit.generation import service
from visionsuit.generation.auto_sheets import list_sheets
from visionsuit.generation.inputs import delete_input, receive_input
from visionsuit.generation.mix import LoraNotFound
from visionsuit.generation.mode_schemas import CardSheetListOut, InputOut
from visionsuit.generation.order import Order
from visionsuit.generation.schemas import GenerationOut, SheetIn, TestSheetIn
from visionsuit.generation.sheets import SheetOrder, order_test_sheet
from visionsuit.generation.view import card_sheet_out, generations_out
from visionsuit.modelcards.queries import get_version
from visionsuit.objects.service import url_of
from visionsuit.router import CtxDep, ReadCtxDep, Router
from visionsuit.runtime import Runtime
from visionsuit.site.live import require_may_generate
from visionsuit.storage.base import Bucket
from visionsuit.uploads.multipart import boundary_of
from visionsuit.uploads.stream import receive_in_thread, refuse_length
from visionsuit.web import ActorDep, RuntimeDep

router = Router(tags=["generator"])

#: What a form may weigh beyond its file.
_FORM_BYTES = 64 * 1024
#: Test sheets wait until nobody else does.
_TEST_PRIORITY = -10
_FILE = {"type": "string", "format": "binary"}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": {"type": "object", "required": ["file"], "properties": {"file": _FILE}}},
            "application/octet-stream": {"schema": _FILE},
        },
    }
}


@router.post(
    "/api/generations/inputs", status_code=201, summary="Send a picture to work from, or a mask", openapi_extra=_BODY
)
async def create_input(request: Request, runtime: RuntimeDep, actor: ActorDep) -> InputOut:
    """PNG, JPEG or WebP up to 10 MB, as the form field `file` or as the body itself. Only you see it. It is kept for a
    day after its last use, and while a waiting render needs it; of more than 30 the longest unused go first."""
    kind = request.headers.get("content-type", "")
    boundary = boundary_of(kind) if kind.lower().startswith("multipart/") else None
    refuse_length(request, runtime.settings.limits.image_bytes + _FORM_BYTES)
    row = await receive_in_thread(request, lambda blocks: receive_input(runtime, actor, blocks, boundary=boundary))
    url = url_of(Bucket.OUTPUTS, row.object_id)
    return InputOut(id=row.public_id, width=row.width, height=row.height, url=url or "")


@router.delete("/api/generations/inputs/{input_id}", status_code=204, summary="Delete a picture to work from")
def remove_input(ctx: CtxDep, input_id: str) -> None:
    """409 `input_in_use` while a render that is not done needs it."""
    delete_input(ctx, input_id)


@router.post("/api/generations/sheets", status_code=202, summary="Render an X/Y sheet")
def create_sheet(runtime: RuntimeDep, actor: ActorDep, body: SheetIn, response: Response) -> GenerationOut:
    """One render whose pictures differ in one or two things, on one seed, with a labelled sheet of all of them.
    422 `sheet_too_large` over 36 cells."""
    return _submit(runtime, actor, body.base.as_order(), body.as_order(), response)


@router.post(
    "/api/models/{model_id}/versions/{version_id}/test-sheet",
    status_code=202,
    summary="Render a test sheet of a LoRA",
)
def create_test_sheet(
    runtime: RuntimeDep, actor: ActorDep, model_id: str, version_id: str, body: TestSheetIn, response: Response
) -> GenerationOut:
    """One prompt and seed at the weights 0, 0.4, 0.7 and 1, without and with the trigger. Begins when nobody waits."""
    with runtime.open_ctx(actor, read_only=True) as ctx:
        require_may_generate(ctx)
        try:
            get_version(ctx, model_id, version_id)
            order, sheet = order_test_sheet(ctx, body.as_order(), model_id, version_id)
        except LoraNotFound as error:
            raise NotFound(error.message) from error
    return _submit(runtime, actor, order, sheet, response, priority=_TEST_PRIORITY)


@router.get("/api/models/{model_id}/test-sheets", summary="Test sheets of a model card")
def list_test_sheets(ctx: ReadCtxDep, model_id: str) -> CardSheetListOut:
    """Those that were made by themselves when the file came. Whoever sees the card sees the finished ones; its owner
    and administrators also see what waits, runs or failed."""
    return CardSheetListOut(items=[card_sheet_out(ctx, sheet) for sheet in list_sheets(ctx, model_id)])


def _submit(
    runtime: Runtime, actor: Actor, order: Order, sheet: SheetOrder, response: Response, *, priority: int = 0
) -> GenerationOut:
    order, prompts = service.check_ahead(runtime, actor, order, sheet)
    with runtime.open_ctx(actor) as ctx:
        queued = service.submit_with_job(ctx, order, sheet, prompts=prompts, priority=priority)
        answer = generations_out(ctx, [queued])[0]
    response.headers["Location"] = f"/api/generations/{answer.id}"
    return answer
