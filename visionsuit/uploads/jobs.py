"""What runs without being asked: removing what uploads left behind whose process died or whose sender went away."""

from datetime import datetime

import structlog
from sqlmodel import col, select

from visionsuit.core.actor import SYSTEM
from visionsuit.core.clock import utcnow
from visionsuit.core.ids import row_id
from visionsuit.runtime import Runtime
from visionsuit.uploads import drafts
from visionsuit.uploads.locks import Life, forget_dead, life_of
from visionsuit.uploads.tables import UploadDraft, UploadFile

log = structlog.get_logger()


def sweep_drafts(runtime: Runtime, now: datetime | None = None) -> int:
    """Discard drafts that are dead, expired or closed, and attempts that died in living ones. Returns how many drafts.

    Runs at start and from time to time, in any number of processes: what one does is harmless a second time.
    """
    oldest = (now or utcnow()) - drafts.KEPT_FOR
    data_dir = runtime.settings.data_dir
    with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        rows = list(ctx.session.exec(select(UploadDraft)))
    swept = 0
    for draft in rows:
        life = life_of(data_dir, draft.public_id) if draft.is_direct else Life.UNKNOWN
        expired = draft.touched_at < oldest and life is not Life.LIVES
        closed = draft.is_closed and not draft.is_direct
        if (life is Life.DEAD or expired or closed) and _close(runtime, row_id(draft), draft.touched_at):
            drafts.discard(runtime, row_id(draft))
            swept += 1
        elif not draft.is_direct:
            _drop_dead_attempts(runtime, row_id(draft))
    with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        named = {*ctx.session.exec(select(UploadDraft.public_id)), *ctx.session.exec(select(UploadFile.attempt))}
    forget_dead(data_dir, {name for name in named if name})
    if swept:
        log.info("uploads_swept", drafts=swept)
    return swept


def _close(runtime: Runtime, draft_id: int, touched_at: datetime) -> bool:
    """Take the draft out of its owner's hands, unless they have come back to it meanwhile."""
    with runtime.open_ctx(SYSTEM) as ctx:
        query = select(UploadDraft).where(col(UploadDraft.id) == draft_id).with_for_update()
        draft = ctx.session.exec(query).one_or_none()
        if draft is None or draft.touched_at != touched_at:
            return False
        draft.is_closed = True
        ctx.session.add(draft)
        return True


def _drop_dead_attempts(runtime: Runtime, draft_id: int) -> None:
    with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        query = select(UploadFile).where(col(UploadFile.draft_id) == draft_id, col(UploadFile.attempt).is_not(None))
        files = list(ctx.session.exec(query))
    for file in files:
        assert file.attempt is not None
        if life_of(runtime.settings.data_dir, file.attempt) is Life.DEAD:
            drafts.drop_attempt(runtime, row_id(file), file.attempt, drafts.unreceived_objects(file))
