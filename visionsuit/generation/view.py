"""Rows -> what the routes answer."""

from collections.abc import Mapping, Sequence
from typing import Any

from visionsuit.core.ids import row_id
from visionsuit.generation.auto_sheets import CardSheet
from visionsuit.generation.cells import Cell, cells_of
from visionsuit.generation.mode_schemas import CardSheetOut, CardSheetPictureOut, CellOut, SheetPictureOut
from visionsuit.generation.queries import RequestRow, get_with_job, images_of
from visionsuit.generation.schemas import (
    ErrorOut,
    GenerationOut,
    PictureOut,
    ProgressOut,
    RequestOut,
)
from visionsuit.generation.tables import Generation
from visionsuit.jobs.events import latest_progress
from visionsuit.jobs.forecast import Forecast, forecast_job
from visionsuit.jobs.rows import JobRow
from visionsuit.jobs.tables import Job, JobState
from visionsuit.objects.service import url_of
from visionsuit.runtime import Ctx
from visionsuit.search.tiles import Thumb
from visionsuit.storage.base import Bucket


def generation_out(ctx: Ctx, public_id: str) -> GenerationOut:
    """
    Raises:
        GenerationNotFound
    """
    return generations_out(ctx, [get_with_job(ctx, public_id)])[0]


def generations_out(
    ctx: Ctx, rows: Sequence[tuple[RequestRow, JobRow]] | Sequence[tuple[Generation, Job]]
) -> list[GenerationOut]:
    """Several at once: their pictures come in one query."""
    images = images_of(ctx, [row_id(generation) for generation, job in rows if job.state == JobState.COMPLETED])
    return [
        GenerationOut(
            **_progress_fields(ctx, generation, job, images.get(row_id(generation), [])),
            request=request_out(generation.request),
        )
        for generation, job in rows
    ]


def request_out(request: Mapping[str, Any]) -> RequestOut:
    init = request.get("init")
    if init is not None:
        mask_url = url_of(Bucket.OUTPUTS, init.get("mask_object_id"))
        request = {**request, "init": {**init, "url": url_of(init["bucket"], init["object_id"]), "mask_url": mask_url}}
    return RequestOut.model_validate(request)


def card_sheet_out(ctx: Ctx, sheet: CardSheet) -> CardSheetOut:
    request, error = sheet.generation.request, _error(sheet.job)
    sees = ctx.actor.is_admin or sheet.generation.owner_id == ctx.actor.user_id
    return CardSheetOut(
        generation_id=sheet.generation.public_id if sees else None,
        version_id=sheet.version_id,
        status=sheet.job.state,
        picture=None if sheet.picture is None else CardSheetPictureOut(**_file_fields(sheet.picture)),
        wait_reason=forecast_job(ctx, sheet.job).wait_reason,
        error=error.message if error else None,
        base_model_label=request["base_model_label"],
        prompt=request["prompt"],
        seed=request["seed"],
        created_at=sheet.generation.created_at,
    )


def progress_out(ctx: Ctx, generation: RequestRow, job: JobRow) -> ProgressOut:
    """Without the request, for the event stream."""
    images = images_of(ctx, [generation.id] if job.state == JobState.COMPLETED else [])
    return ProgressOut(**_progress_fields(ctx, generation, job, images.get(generation.id, [])))


def _progress_fields(
    ctx: Ctx, generation: RequestRow | Generation, job: JobRow | Job, images: list[Any]
) -> dict[str, Any]:
    forecast = forecast_job(ctx, job)
    phase, step, steps, preview = job.phase, job.step, job.steps or job.units, None
    if job.state == JobState.RUNNING:
        # The bus is ahead of the row, which is written twice a second.
        latest = latest_progress(ctx.bus, job.public_id) or {}
        phase, step, steps = latest.get("phase", phase), latest.get("step", step), latest.get("steps") or steps
        preview = latest.get("preview")
    return {
        "id": generation.public_id,
        "status": job.state,
        "phase": phase if job.state == JobState.RUNNING else None,
        "progress": _fraction(job.state, step, steps),
        "step": steps if job.state == JobState.COMPLETED else step,
        "steps": steps,
        "preview": preview,
        "images": _pictures_out(generation.request, images),
        "sheet": next((_sheet_out(image) for image in images if image.is_sheet), None),
        "error": _error(job),
        **_forecast_fields(forecast),
        "created_at": generation.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "duration_s": _duration_s(job),
    }


def _pictures_out(request: Mapping[str, Any], images: list[Any]) -> list[PictureOut]:
    if not images:
        return []
    cells = cells_of(request)
    return [_picture_out(image, cells[image.index]) for image in images if not image.is_sheet]


def _picture_out(image: Any, cell: Cell) -> PictureOut:
    return PictureOut(
        **_file_fields(image),
        seed=image.seed,
        label=cell.label,
        cell=None if cell.label is None else CellOut(x=cell.x, y=cell.y),
        variation_seed=cell.variation_seed,
    )


def _sheet_out(image: Any) -> SheetPictureOut:
    return SheetPictureOut(**_file_fields(image))


def _file_fields(image: Any) -> dict[str, Any]:
    """`image`: a GenerationImage, or its columns."""
    return {
        "id": image.public_id,
        "url": url_of(Bucket.OUTPUTS, image.object_id) or "",
        "thumb": Thumb(
            small=url_of(Bucket.OUTPUTS, image.thumb_small_id) or "",
            large=url_of(Bucket.OUTPUTS, image.thumb_large_id) or "",
            placeholder=image.placeholder,
            width=image.width,
            height=image.height,
        ),
        "width": image.width,
        "height": image.height,
        "saved": image.saved_image_id is not None,
    }


def _fraction(state: str, step: int, steps: int) -> float:
    if state == JobState.COMPLETED:
        return 1.0
    return round(min(1.0, step / steps), 4) if steps else 0.0


def _error(job: JobRow | Job) -> ErrorOut | None:
    if job.state != JobState.FAILED:
        return None
    return ErrorOut(code=job.error_code or "internal", message=job.error_message or "Something went wrong.")


def _forecast_fields(forecast: Forecast) -> dict[str, Any]:
    eta_s = None if forecast.eta_s is None else round(forecast.eta_s, 1)
    return {"place": forecast.place, "eta_s": eta_s, "wait_reason": forecast.wait_reason}


def _duration_s(job: JobRow | Job) -> float | None:
    if job.started_at is None or job.finished_at is None:
        return None
    return round((job.finished_at - job.started_at).total_seconds(), 3)
