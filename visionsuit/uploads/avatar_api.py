"""PUT and DELETE /api/users/me/avatar."""

from typing import Any

from fastapi import Request

from visionsuit.accounts.schemas import UserOut, user_out
from visionsuit.core.permissions import Permission, require
from visionsuit.router import CtxDep, Router
from visionsuit.uploads.avatar import receive_avatar, remove_avatar
from visionsuit.uploads.multipart import boundary_of
from visionsuit.uploads.stream import receive_in_thread
from visionsuit.web import ActorDep, RuntimeDep

router = Router(prefix="/api/users/me/avatar", tags=["users"])

_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}


@router.put("", summary="Set my avatar", openapi_extra=_FORM)
async def set_my_avatar(request: Request, runtime: RuntimeDep, actor: ActorDep) -> UserOut:
    """PNG, JPEG or WebP up to 5 MB; everybody sees its middle square, without its metadata."""
    require(actor, Permission.PROFILE_EDIT)
    boundary = boundary_of(request.headers.get("content-type", ""))
    account = await receive_in_thread(request, lambda blocks: receive_avatar(runtime, actor, blocks, boundary))
    return user_out(account, actor)


@router.delete("", status_code=204, summary="Remove my avatar")
def remove_my_avatar(ctx: CtxDep) -> None:
    remove_avatar(ctx)
