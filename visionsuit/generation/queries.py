"""Every SELECT on render requests. A request is its owner's and the administrators'; nobody else learns of it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import ColumnElement
from sqlmodel import Session, col, select

from visionsuit.core.errors import InvalidInput, NotFound, NotSignedIn
from visionsuit.core.ids import is_id
from visionsuit.core.paging import DEFAULT_LIMIT, Page, decode_cursor, encode_cursor
from visionsuit.generation.tables import Generation, GenerationImage
from visionsuit.jobs.rows import JOB_COLUMNS, JobRow
from visionsuit.jobs.tables import IDLE_PRIORITY, Job, JobState
from visionsuit.runtime import Ctx


class RequestRow(NamedTuple):
    """A request as a plain row, as it was when it was read. The fields are columns of `Generation`."""

    id: int
    public_id: str
    owner_id: int
    job_id: int
    request: dict[str, Any]
    created_at: datetime
    viewed_at: datetime | None


_NOT_FOUND = "There is no such render, or it is not yours."

# Asked at every change of every render that somebody watches: built once.
_named = col(Generation.public_id) == sa.bindparam("public_id", type_=sa.String())
_visible = sa.or_(
    sa.bindparam("sees_all", type_=sa.Boolean()),
    col(Generation.owner_id) == sa.bindparam("viewer_id", type_=sa.Integer()),
)
_generations: sa.Table = Generation.__table__  # type: ignore[attr-defined]
_images: sa.Table = GenerationImage.__table__  # type: ignore[attr-defined]
_jobs: sa.Table = Job.__table__  # type: ignore[attr-defined]
_COLUMNS = tuple(_generations.c[name] for name in RequestRow._fields)
_WITH_JOB = sa.select(*_COLUMNS, *JOB_COLUMNS).join(_jobs, _jobs.c.id == _generations.c.job_id).where(_named, _visible)
_IMAGES = sa.select(_images).order_by(_images.c.generation_id, _images.c.index)
_IMAGES_OF_ONE = _IMAGES.where(_images.c.generation_id == sa.bindparam("id", type_=sa.Integer()))
_IMAGES_OF_MANY = _IMAGES.where(_images.c.generation_id.in_(sa.bindparam("ids", expanding=True)))
_ID_FOR_UPDATE = sa.select(_generations.c.id).where(_named).with_for_update()


class GenerationNotFound(NotFound):
    code = "generation_not_found"


def visible(ctx: Ctx) -> ColumnElement[bool]:
    """Condition on Generation: what the actor may know of."""
    if ctx.actor.is_admin:
        return sa.true()
    if ctx.actor.user_id is None:
        return sa.false()
    return col(Generation.owner_id) == ctx.actor.user_id


def _viewer(ctx: Ctx) -> dict[str, Any]:
    """The same for statements that are built once; a guest's id is NULL, which is nobody's."""
    return {"sees_all": ctx.actor.is_admin, "viewer_id": ctx.actor.user_id}


def get_generation(ctx: Ctx, public_id: str) -> Generation:
    """
    Raises:
        GenerationNotFound: there is none, or it is somebody else's.
    """
    found = None
    if is_id(public_id):
        found = ctx.session.exec(select(Generation).where(col(Generation.public_id) == public_id, visible(ctx))).first()
    if found is None:
        raise GenerationNotFound(_NOT_FOUND)
    return found


def get_with_job(ctx: Ctx, public_id: str) -> tuple[RequestRow, JobRow]:
    """The request and the job behind it, as they are now, in one statement.

    Raises:
        GenerationNotFound
    """
    found = None
    if is_id(public_id):
        asked = {"public_id": public_id, **_viewer(ctx)}
        found = ctx.connection.execute(_WITH_JOB, asked).first()
    if found is None:
        raise GenerationNotFound(_NOT_FOUND)
    return RequestRow(*found[: len(_COLUMNS)]), JobRow(*found[len(_COLUMNS) :])


def lock_id(ctx: Ctx, public_id: str) -> int | None:
    """Primary key of a request, whoever asks; nobody else deletes it until the transaction ends. None: it is gone."""
    found: int | None = ctx.connection.execute(_ID_FOR_UPDATE, {"public_id": public_id}).scalar_one_or_none()
    return found


def list_generations(
    ctx: Ctx, *, status: str | None = None, cursor: str | None = None, limit: int = DEFAULT_LIMIT
) -> Page[tuple[Generation, Job]]:
    """The actor's own, newest first, also for administrators: a history is one's own.

    `status` is a job's state, or `active` for everything that is not finished.

    Raises:
        NotSignedIn: guests have no history.
        InvalidInput: no such status.
    """
    _require_account(ctx)
    query = (
        select(Generation, Job)
        .join(Job, col(Job.id) == col(Generation.job_id))
        .where(col(Generation.owner_id) == ctx.actor.user_id)
        .order_by(col(Generation.id).desc())
        .limit(limit + 1)
    )
    if status == "active":
        query = query.where(col(Job.state).in_([JobState.PENDING, JobState.QUEUED, JobState.RUNNING]))
    elif status is not None:
        if status not in list(JobState):
            known = ", ".join(["active", *JobState])
            raise InvalidInput(f"There is no such status; there are: {known}.", field="status")
        query = query.where(col(Job.state) == status)
    if cursor:
        query = query.where(col(Generation.id) < decode_cursor(cursor, int)[0])
    rows = list(ctx.session.exec(query))
    more, rows = len(rows) > limit, rows[:limit]
    return Page([(row[0], row[1]) for row in rows], encode_cursor(rows[-1][0].id) if more else None)


def images_of(ctx: Ctx, ids: Sequence[int]) -> dict[int, list[Any]]:
    """Rows of the pictures of several requests in one query, by the request's primary key, in order."""
    found: dict[int, list[Any]] = {id_: [] for id_ in ids}
    if ids:
        connection = ctx.connection
        one = len(ids) == 1
        rows = (
            connection.execute(_IMAGES_OF_ONE, {"id": ids[0]})
            if one
            else connection.execute(_IMAGES_OF_MANY, {"ids": ids})
        )
        for row in rows:
            found[row.generation_id].append(row)
    return found


def job_of(ctx: Ctx, generation: Generation) -> Job:
    """The job behind a request, as this transaction knows it."""
    job = ctx.session.get(Job, generation.job_id)
    assert job is not None
    return job


def count_by_status(ctx: Ctx) -> dict[str, int]:
    """How many of the actor's own requests are in each state, every state named. `unseen`: done, not looked at."""
    _require_account(ctx)
    rows = ctx.session.execute(
        sa.select(col(Job.state), sa.func.count(), sa.func.count(col(Generation.viewed_at)))
        .join(Generation, col(Generation.job_id) == col(Job.id))
        .where(col(Generation.owner_id) == ctx.actor.user_id)
        .group_by(col(Job.state))
    ).all()
    counts = {state.value: 0 for state in JobState}
    unseen = 0
    for state, count, viewed in rows:
        counts[state] = count
        if state == JobState.COMPLETED:
            unseen = count - viewed
    return {"all": sum(counts.values()), **counts, "unseen": unseen}


def sees_generation(ctx: Ctx, public_id: str) -> bool:
    """Whether the actor may fetch the files of this request."""
    query = select(Generation.id).where(col(Generation.public_id) == public_id, visible(ctx))
    return ctx.session.exec(query).first() is not None


def is_file_of_image(object_id: str) -> ColumnElement[bool]:
    """Condition on GenerationImage: this file of bucket `outputs` is the picture, or a thumbnail of it."""
    columns = (GenerationImage.object_id, GenerationImage.thumb_small_id, GenerationImage.thumb_large_id)
    return sa.or_(*(col(column) == object_id for column in columns))


def sees_output(ctx: Ctx, object_id: str) -> bool:
    """Whether the actor may fetch this file of bucket `outputs`."""
    image = GenerationImage
    query = (
        select(image.id)
        .join(Generation, col(Generation.id) == col(image.generation_id))
        .where(is_file_of_image(object_id), visible(ctx))
    )
    return ctx.session.exec(query).first() is not None


def count_renders(session: Session) -> int:
    """Finished renders that somebody asked for, for the public numbers."""
    query = select(sa.func.count(col(Job.id))).where(
        col(Job.state) == JobState.COMPLETED, col(Job.kind) == "generation", col(Job.priority) > IDLE_PRIORITY
    )
    return session.exec(query).one()


def _require_account(ctx: Ctx) -> None:
    if ctx.actor.is_guest:
        raise NotSignedIn("Sign in to see your renders.")
