"""Uploads as programs see them."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from visionsuit.galleries.out import GalleryTile
from visionsuit.images.out import ImageTile
from visionsuit.runtime import Ctx
from visionsuit.uploads import drafts
from visionsuit.uploads.drafts import Announced, received_of
from visionsuit.uploads.tables import DraftKind, FileRole, UploadDraft, UploadFile


class UploadedImages(BaseModel):
    items: list[ImageTile]
    gallery: GalleryTile | None


class FileIn(BaseModel):
    name: str = Field(min_length=1, max_length=1000, examples=["ink-style.safetensors"])
    size_bytes: int | None = Field(None, ge=0, lt=2**53, examples=[151_108_832])
    role: FileRole = Field(examples=["weights"])


class DraftIn(BaseModel):
    kind: DraftKind = Field(examples=["model"])
    files: list[FileIn] = Field(max_length=100)

    def announced(self) -> list[Announced]:
        return [Announced(file.name, file.role, file.size_bytes) for file in self.files]


class FileOut(BaseModel):
    """`sha256` once the file has arrived; `found` is what was read from it: type, base model, size, recipe."""

    number: int
    role: FileRole
    name: str
    size_bytes: int | None
    received: bool
    sha256: str | None
    found: dict[str, Any] | None
    upload_url: str


class DraftOut(BaseModel):
    id: str
    kind: DraftKind
    files: list[FileOut]
    created_at: datetime
    expires_at: datetime


class PublishIn(BaseModel):
    """The fields of the multipart form of the same kind, as JSON."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={"examples": [{"title": "Ink style", "trigger": "ink style", "visibility": "public"}]},
    )

    title: str | None = None
    trigger: str | None = None
    type: str | None = None
    base_model: str | None = None
    description: str = ""
    tags: list[str] = Field(default_factory=list, max_length=1000)
    visibility: str = "private"
    adult: bool = False
    gallery_id: str | None = None
    gallery_title: str | None = None


def draft_out(ctx: Ctx, draft: UploadDraft) -> DraftOut:
    return DraftOut(
        id=draft.public_id,
        kind=DraftKind(draft.kind),
        files=[file_out(draft, file) for file in drafts.list_files(ctx, draft)],
        created_at=draft.created_at,
        expires_at=draft.touched_at + drafts.KEPT_FOR,
    )


def file_out(draft: UploadDraft, file: UploadFile) -> FileOut:
    received = received_of(file)
    found = None
    if received is not None:
        stored = received.files[0]
        found = received.model_dump(mode="json", include={"type", "family", "base_model", "width", "height", "recipe"})
    return FileOut(
        number=file.number,
        role=FileRole(file.role),
        name=file.name,
        size_bytes=stored.size_bytes if received else file.size_bytes,
        received=received is not None,
        sha256=stored.sha256 if received else None,
        found=found,
        upload_url=f"/api/uploads/drafts/{draft.public_id}/files/{file.number}",
    )
