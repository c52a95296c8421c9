"""REST: /api/storage and the counted download of a model version."""

from typing import Annotated, Any

from fastapi import Query, Request, Response

from visionsuit.downloads import service
from visionsuit.downloads.serving import SmallFiles, serve, wants_beginning
from visionsuit.router import Router
from visionsuit.storage.base import Bucket, ObjectMissing
from visionsuit.web import ActorDep, RuntimeDep

router = Router(tags=["files"])

_FILE = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_BYTES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file.", "content": _FILE},
    206: {"description": "The part that `Range` asked for.", "content": _FILE},
    304: {"description": "The caller has it already (`If-None-Match`)."},
    401: {"description": "A weights file, which needs an account."},
    404: {"description": "No such file, or it is not shared with the caller."},
    416: {"description": "The range lies outside the file."},
}


def small_files(request: Request) -> SmallFiles:
    """One a served application; made when first asked for."""
    state = request.app.state
    if not hasattr(state, "small_files"):
        state.small_files = SmallFiles()
    small: SmallFiles = state.small_files
    return small


@router.head("/api/storage/{bucket}/{object_id}", include_in_schema=False)
@router.get("/api/storage/{bucket}/{object_id}", response_class=Response, responses=_BYTES)
def read_file(
    request: Request,
    runtime: RuntimeDep,
    actor: ActorDep,
    bucket: str,
    object_id: str,
    download: Annotated[bool, Query(description="Answer as an attachment, for saving.")] = False,
) -> Response:
    """A stored file by its id, to whoever may see what it belongs to.

    The content under an id never changes. Ranges, `ETag`, `If-None-Match` and `If-Range` are honoured.
    """
    if bucket not in set(Bucket):
        raise ObjectMissing("There is no such file here, or it is not shared with you.")
    file = service.open_file(runtime, actor, Bucket(bucket), object_id, counts=wants_beginning(request))
    return serve(request, runtime, small_files(request), file, as_attachment=download)


@router.head("/api/models/{card_id}/versions/{version_id}/download", include_in_schema=False)
@router.get(
    "/api/models/{card_id}/versions/{version_id}/download", response_class=Response, responses=_BYTES, tags=["models"]
)
def download_version(request: Request, runtime: RuntimeDep, actor: ActorDep, card_id: str, version_id: str) -> Response:
    """The weights file of a version. Needs an account; counted once a person and day."""
    _, file = service.open_version(runtime, actor, card_id, version_id, counts=wants_beginning(request))
    return serve(request, runtime, small_files(request), file, as_attachment=True)
