"""What the sweeper removes, and what it must leave alone."""

from datetime import timedelta

import pytest
from sqlmodel import func, select

from tests.conftest import People
from tests.uploads.weights import make_lora, make_picture
from visionsuit.core.actor import SYSTEM
from visionsuit.core.clock import utcnow
from visionsuit.core.ids import new_id, row_id
from visionsuit.runtime import Runtime
from visionsuit.storage.base import Bucket
from visionsuit.uploads import drafts, service
from visionsuit.uploads.drafts import Announced, direct_draft, open_draft
from visionsuit.uploads.jobs import sweep_drafts
from visionsuit.uploads.locks import Life, UploadLock, life_of
from visionsuit.uploads.tables import DraftKind, FileRole, UploadDraft, UploadFile

LATER = timedelta(hours=25)


def counts(runtime: Runtime) -> tuple[int, int]:
    """Drafts and stored objects."""
    with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        rows = ctx.session.exec(select(func.count()).select_from(UploadDraft)).one()
    return rows, sum(1 for bucket in Bucket for _ in runtime.storage.list_objects(bucket))


def model_draft(runtime: Runtime, people: People) -> str:
    with runtime.open_ctx(people.curator) as ctx:
        files = [Announced("a.safetensors", FileRole.WEIGHTS), Announced("c.png", FileRole.COVER)]
        return open_draft(ctx, DraftKind.MODEL, files).public_id


def locks(runtime: Runtime) -> int:
    return len(list((runtime.settings.data_dir / "uploads").glob("*.lock")))


def test_a_living_upload_stays_however_old(runtime: Runtime, people: People) -> None:
    with direct_draft(runtime, people.curator, DraftKind.IMAGES) as draft_id:
        file = Announced("a.png", FileRole.IMAGE)
        drafts.receive_direct(runtime, people.curator, draft_id, 0, file, [make_picture()])
        assert sweep_drafts(runtime, utcnow() + LATER) == 0
        assert counts(runtime) == (1, 3)
    assert counts(runtime) == (0, 0)
    assert locks(runtime) == 0


def test_an_open_draft_stays_for_a_day_and_not_longer(runtime: Runtime, people: People) -> None:
    public_id = model_draft(runtime, people)
    service.receive_draft_file(runtime, people.curator, public_id, 0, [make_lora()])
    assert sweep_drafts(runtime, utcnow() + timedelta(hours=23)) == 0
    assert counts(runtime) == (1, 1)
    assert sweep_drafts(runtime, utcnow() + LATER) == 1
    assert counts(runtime) == (0, 0)


def dead_lock(runtime: Runtime, id: str) -> None:
    """The lock as a process leaves it that is killed: there, but free."""
    path = runtime.settings.data_dir / "uploads" / f"{id}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_a_dead_upload_goes_at_once_with_everything_it_wrote(runtime: Runtime, people: People) -> None:
    with runtime.open_ctx(people.curator) as ctx:
        draft = UploadDraft(owner_id=people.curator.user_id or 0, kind=DraftKind.IMAGES, is_direct=True)
        ctx.session.add(draft)
        ctx.session.flush()
        name = new_id()
        ctx.session.add(
            UploadFile(
                draft_id=row_id(draft),
                number=0,
                role=FileRole.IMAGE,
                name="a.png",
                objects=[[Bucket.IMAGES.value, name]],
            )
        )
    runtime.storage.put(Bucket.IMAGES, name, [b"half"])
    assert sweep_drafts(runtime) == 0, "nothing is known about it: another machine may be sending"
    dead_lock(runtime, draft.public_id)
    assert sweep_drafts(runtime) == 1
    assert counts(runtime) == (0, 0)
    assert locks(runtime) == 0


def test_a_dead_attempt_goes_and_its_draft_stays(runtime: Runtime, people: People) -> None:
    public_id = model_draft(runtime, people)
    service.receive_draft_file(runtime, people.curator, public_id, 0, [make_lora()])
    name = new_id()
    with runtime.open_ctx(people.curator) as ctx:
        file = drafts.list_files(ctx, drafts.get_draft(ctx, public_id))[0]
        file.attempt = "dead-attempt"
        file.objects = [*file.objects, [Bucket.MODELS.value, name]]
        ctx.session.add(file)
    runtime.storage.put(Bucket.MODELS, name, [b"half"])
    dead_lock(runtime, "dead-attempt")
    assert sweep_drafts(runtime) == 0
    assert counts(runtime) == (1, 1)
    assert locks(runtime) == 0
    with runtime.open_ctx(people.curator, read_only=True) as ctx:
        file = drafts.list_files(ctx, drafts.get_draft(ctx, public_id))[0]
        assert file.received is not None
        assert file.attempt is None


def test_what_was_published_is_never_swept(runtime: Runtime, people: People) -> None:
    public_id = model_draft(runtime, people)
    service.receive_draft_file(runtime, people.curator, public_id, 0, [make_lora()])
    service.receive_draft_file(runtime, people.curator, public_id, 1, [make_picture()])
    with runtime.open_ctx(people.curator, read_only=True) as ctx:
        draft_id = row_id(drafts.get_draft(ctx, public_id))
        files = [file.model_dump() for file in drafts.list_files(ctx, drafts.get_draft(ctx, public_id))]
    values = {"title": "a", "trigger": "b"}
    service.publish_draft(runtime, people.curator, public_id, values, lambda _, card: card, lambda *_: None)
    assert counts(runtime) == (0, 4)
    # As if the process had died between the commit and the clean-up.
    with runtime.open_ctx(SYSTEM) as ctx:
        ctx.session.add(
            UploadDraft(
                id=draft_id,
                public_id=public_id,
                owner_id=people.curator.user_id or 0,
                kind=DraftKind.MODEL,
                is_closed=True,
            )
        )
        ctx.session.flush()
        ctx.session.add_all([UploadFile(**file) for file in files])
    assert sweep_drafts(runtime) == 1
    assert counts(runtime) == (0, 4)


def test_a_second_attempt_wins_over_a_first_that_ends_late(runtime: Runtime, people: People) -> None:
    public_id = model_draft(runtime, people)
    first, second = make_lora(1), make_lora(2)

    def blocks():  # type: ignore[no-untyped-def]
        yield first[:1000]
        service.receive_draft_file(runtime, people.curator, public_id, 0, [second])
        yield first[1000:]

    with pytest.raises(drafts.Superseded):
        service.receive_draft_file(runtime, people.curator, public_id, 0, blocks())
    assert counts(runtime) == (1, 1)
    with runtime.open_ctx(people.curator, read_only=True) as ctx:
        file = drafts.list_files(ctx, drafts.get_draft(ctx, public_id))[0]
        received = drafts.received_of(file)
    assert received is not None
    assert runtime.storage.read_bytes(Bucket.MODELS, received.files[0].object_id) == second


def test_locks(runtime: Runtime) -> None:
    data_dir = runtime.settings.data_dir
    lock = UploadLock(data_dir)
    assert life_of(data_dir, lock.id) is Life.LIVES
    lock.release()
    assert life_of(data_dir, lock.id) is Life.UNKNOWN
    dead_lock(runtime, "somebody")
    assert life_of(data_dir, "somebody") is Life.DEAD
