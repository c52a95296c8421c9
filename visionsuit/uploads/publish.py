"""Received files -> a model card or image pages, in one transaction."""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from visionsuit.audit import service as audit
from visionsuit.core.errors import InvalidInput
from visionsuit.core.text import TITLE_CHARACTERS, clean_line, clean_tags, clean_title
from visionsuit.galleries.queries import find_own_gallery, get_gallery
from visionsuit.galleries.service import add_items, create_gallery
from visionsuit.galleries.tables import Gallery
from visionsuit.images.queries import find_image_by_sha256
from visionsuit.images.service import create_image
from visionsuit.images.tables import Image
from visionsuit.modelcards.queries import find_version_by_sha256
from visionsuit.modelcards.service import create_card
from visionsuit.modelcards.tables import ModelCard, ModelType
from visionsuit.objects.service import Subject, adopt
from visionsuit.runtime import Ctx
from visionsuit.uploads.drafts import received_of
from visionsuit.uploads.errors import DraftIncomplete, DuplicateFile, MissingFile
from visionsuit.uploads.published import tell_published
from visionsuit.uploads.receive import ReceivedPicture, ReceivedWeights
from visionsuit.uploads.tables import FileRole, UploadFile
from visionsuit.visibility import Visibility

M = TypeVar("M", bound="Metadata")


def _no_empty(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


class Metadata(BaseModel):
    """What people say about what they upload."""

    model_config = ConfigDict(extra="ignore")

    title: Annotated[str | None, BeforeValidator(_no_empty)] = None
    description: str = ""
    tags: list[str] = Field(default_factory=list)
    visibility: Visibility = Visibility.PRIVATE
    adult: bool = False


class ModelMetadata(Metadata):
    """`type` and `base_model` are read from the file where they are not given."""

    trigger: Annotated[str | None, BeforeValidator(_no_empty)] = None
    type: Annotated[ModelType | None, BeforeValidator(_no_empty)] = None
    base_model: Annotated[str | None, BeforeValidator(_no_empty)] = None


class ImagesMetadata(Metadata):
    """`title` for all; without it each is named after its file. At most one of the gallery fields."""

    gallery_id: Annotated[str | None, BeforeValidator(_no_empty)] = None
    gallery_title: Annotated[str | None, BeforeValidator(_no_empty)] = None


def parse_metadata(kind: type[M], values: dict[str, Any]) -> M:
    """
    Raises:
        InvalidInput: names the first field that makes no sense.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else None
        raise InvalidInput(f"{field}: {first['msg'].removeprefix('Value error, ')}.", field=field) from error


def refuse_duplicate(ctx: Ctx, received: ReceivedWeights | ReceivedPicture) -> None:
    """
    Raises:
        DuplicateFile: something that the actor sees holds the same bytes. What they do not see is not given away.
    """
    if isinstance(received, ReceivedWeights):
        found = find_version_by_sha256(ctx, received.file.sha256)
        if found is not None:
            card = found[0]
            raise DuplicateFile(
                f"{received.file.file_name} is in the library already, on the card '{card.title}'.",
                kind="model",
                id=card.public_id,
                title=card.title,
            )
        return
    image = find_image_by_sha256(ctx, received.picture.sha256)
    if image is not None:
        raise DuplicateFile(
            f"{received.picture.file_name} is in the library already, as the image '{image.title}'.",
            kind="image",
            id=image.public_id,
            title=image.title,
        )


def check_duplicate(ctx: Ctx, role: FileRole, received: ReceivedWeights | ReceivedPicture) -> None:
    """A cover may be any picture, also one that the library has."""
    if role is not FileRole.COVER:
        refuse_duplicate(ctx, received)


def publish_model(ctx: Ctx, files: list[UploadFile], metadata: ModelMetadata) -> ModelCard:
    """
    Raises:
        MissingFile, DraftIncomplete, DuplicateFile, InvalidInput
    """
    title = clean_title(metadata.title or "")
    if metadata.trigger is None:
        raise InvalidInput("A trigger is needed: the words in a prompt that call this model up.", field="trigger")
    weights = cover = None
    for file in files:
        received = _received(file)
        if isinstance(received, ReceivedWeights):
            weights = received
        else:
            cover = received
    if weights is None:
        raise MissingFile("The weights are missing: one .safetensors file, or a zip that holds one.", field="file")
    if cover is None:
        raise MissingFile("The cover is missing: one PNG, JPEG or WebP picture.", field="cover")
    refuse_duplicate(ctx, weights)
    card = create_card(
        ctx,
        title=title,
        object_id=weights.file.object_id,
        file_name=weights.file.file_name,
        size_bytes=weights.file.size_bytes,
        sha256=weights.file.sha256,
        type=metadata.type or ModelType(weights.type or ModelType.LORA),
        base_model=metadata.base_model or weights.base_model,
        family=weights.family,
        trigger=metadata.trigger,
        description=metadata.description,
        tags=metadata.tags,
        visibility=metadata.visibility,
        is_adult=metadata.adult,
        facts=weights.facts,
        cover_object_id=cover.picture.object_id,
        cover_small_id=cover.small.object_id,
        cover_large_id=cover.large.object_id,
        cover_placeholder=cover.placeholder,
        cover_width=cover.width,
        cover_height=cover.height,
    )
    for stored in (*weights.files, *cover.files):
        adopt(ctx, stored, Subject("model", card.public_id), keeps_file=True)
    audit.record(ctx, "model.upload", card.public_id, {"sha256": weights.file.sha256})
    tell_published(ctx, card)
    return card


def publish_images(ctx: Ctx, files: list[UploadFile], metadata: ImagesMetadata) -> tuple[list[Image], Gallery | None]:
    """
    Raises:
        MissingFile, DraftIncomplete, DuplicateFile, InvalidInput, GalleryNotFound, NotPermitted, GalleryFull
    """
    if not files:
        raise MissingFile("Send at least one picture.", field="files")
    if metadata.gallery_id and metadata.gallery_title:
        raise InvalidInput("Name one gallery, by id or by title.", field="gallery_title")
    tags = clean_tags(metadata.tags)
    pictures = [_picture(file) for file in files]
    names: dict[str, str] = {}
    for picture in pictures:
        file = picture.picture
        if file.sha256 in names:
            raise InvalidInput(f"{names[file.sha256]} and {file.file_name} are the same picture.", field="files")
        names[file.sha256] = file.file_name
        refuse_duplicate(ctx, picture)
    gallery = _find_gallery(ctx, metadata)
    images = []
    for number, picture in enumerate(pictures, start=1):
        title = _title(metadata.title, picture.picture.file_name, number, len(pictures))
        images.append(_create_image(ctx, picture, metadata, title, tags))
    if gallery is not None:
        add_items(ctx, gallery, images=images)
    audit.record(ctx, "image.upload", images[0].public_id, {"images": [image.public_id for image in images]})
    return images, gallery


def _create_image(ctx: Ctx, picture: ReceivedPicture, metadata: ImagesMetadata, title: str, tags: list[str]) -> Image:
    image = create_image(
        ctx,
        title=title,
        object_id=picture.picture.object_id,
        file_name=picture.picture.file_name,
        mime=picture.picture.mime,
        size_bytes=picture.picture.size_bytes,
        sha256=picture.picture.sha256,
        width=picture.width,
        height=picture.height,
        thumb_small_id=picture.small.object_id,
        thumb_large_id=picture.large.object_id,
        placeholder=picture.placeholder,
        dhash=picture.dhash,
        description=metadata.description,
        tags=tags,
        visibility=metadata.visibility,
        is_adult=metadata.adult,
        recipe=picture.recipe,
    )
    for stored in picture.files:
        adopt(ctx, stored, Subject("image", image.public_id), keeps_file=True)
    return image


def _find_gallery(ctx: Ctx, metadata: ImagesMetadata) -> Gallery | None:
    if metadata.gallery_id:
        return get_gallery(ctx, metadata.gallery_id)
    if not metadata.gallery_title:
        return None
    title = clean_title(metadata.gallery_title, "gallery_title")
    return find_own_gallery(ctx, title) or create_gallery(
        ctx, title=title, visibility=metadata.visibility, is_adult=metadata.adult
    )


def _title(given: str | None, file_name: str, number: int, count: int) -> str:
    if given:
        ending = f" {number}" if count > 1 else ""
        return clean_title(given)[: TITLE_CHARACTERS - len(ending)] + ending
    words = clean_line(file_name.rpartition(".")[0].replace("_", " ").replace("-", " "))
    return words[:TITLE_CHARACTERS].strip() or "Untitled"


def _received(file: UploadFile) -> ReceivedWeights | ReceivedPicture:
    received = received_of(file)
    if received is None:
        raise DraftIncomplete(f"{file.name} has not arrived yet.")
    return received


def _picture(file: UploadFile) -> ReceivedPicture:
    received = _received(file)
    if not isinstance(received, ReceivedPicture):
        raise InvalidInput(f"{file.name} is no picture.", field="files")
    return received
