"""What is accepted, completed, refused; by whom."""

import cProfile
import threading
from dataclasses import replace
from typing import Any

import pytest

from tests.conftest import People
from tests.generation.conftest import lora_bytes, make_card, order, show, submit
from tests.postgres import both_databases
from visionsuit.core.actor import SYSTEM
from visionsuit.core.config import GeneratorAccess
from visionsuit.core.errors import AppError, InvalidInput, NotFound, NotPermitted, NotSignedIn
from visionsuit.engine.base import IncompatibleLora
from visionsuit.generation import service
from visionsuit.generation.order import HiresOrder, LoraOrder
from visionsuit.generation.prompts import UnknownLoraTag
from visionsuit.generation.sheets import AxisOrder, SheetOrder
from visionsuit.generation.tables import BaseModel, Generation
from visionsuit.jobs.queue import TooManyActive
from visionsuit.modelcards.queries import get_card
from visionsuit.modelcards.service import change_card
from visionsuit.modelcards.tables import ModelType
from visionsuit.runtime import Runtime
from visionsuit.site.live import GeneratorClosed, change_settings
from visionsuit.visibility import Visibility


def test_a_request_is_completed_and_recorded(site: Runtime, people: People) -> None:
    shown = show(site, people.user, submit(site, people.user, order("  a  cat\r\n", steps=None, seed=None)))
    request = shown.request
    assert shown.status == "queued"
    assert request.prompt == "a  cat"
    assert 0 <= request.seed < 2**32
    assert request.steps > 0
    assert request.base_model_label
    assert request.sampler
    assert shown.place == 1
    assert "renderer" in (shown.wait_reason or "")


def test_seeds_left_out_differ(site: Runtime, people: People) -> None:
    seeds = {show(site, people.user, submit(site, people.user, order(seed=None))).request.seed for _ in range(3)}
    assert len(seeds) == 3


@pytest.mark.parametrize(
    ("field", "value", "limit"),
    [
        ("prompt", "", "prompt"),
        ("prompt", " \x00\u202e ", "prompt"),
        ("prompt", "x" * 4001, "4000"),
        ("negative_prompt", "x" * 4001, "4000"),
        ("steps", 0, "200"),
        ("steps", 201, "200"),
        ("guidance", -0.1, "40"),
        ("guidance", 40.5, "40"),
        ("guidance", float("nan"), "40"),
        ("guidance", float("inf"), "40"),
        ("seed", -1, "4294967295"),
        ("seed", 2**32, "4294967295"),
        ("seed", 10**300, "4294967295"),
        ("count", 0, "8"),
        ("count", 9, "8"),
        ("width", 1, "pixels|whole"),
        ("width", 10**9, "whole"),
        ("height", -256, "whole"),
        ("sampler", "nonsense", "euler"),
        ("schedule", "../../etc", "karras"),
        ("base_model_id", "nope", "base model"),
        ("base_model_id", "\x00", "base model"),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_name(
    site: Runtime, people: People, field: str, value: Any, limit: str
) -> None:
    with pytest.raises(InvalidInput, match=limit) as refused:
        submit(site, people.user, order(**{field: value}))
    assert refused.value.field == field
    assert len(refused.value.message) < 300


def test_a_size_between_steps_is_refused_with_the_nearest(site: Runtime, people: People) -> None:
    with site.open_ctx(SYSTEM, read_only=True) as ctx:
        base = ctx.session.get(BaseModel, 1)
        assert base is not None
    with pytest.raises(InvalidInput) as refused:
        submit(site, people.user, order(width=base.min_size + 1))
    assert refused.value.field == "width"
    assert str(base.min_size + base.size_step) in (refused.value.hint or "")


@pytest.mark.parametrize(
    ("field", "mix"),
    [
        ("loras", [LoraOrder("a" * 16)] * 13),
        ("loras.0.weight", [LoraOrder("a" * 16, weight=2.01)]),
        ("loras.0.weight", [LoraOrder("a" * 16, weight=float("nan"))]),
        ("loras.0.text_encoder_weight", [LoraOrder("a" * 16, text_encoder_weight=-3)]),
        ("loras.0.model_id", [LoraOrder("a" * 16)]),
        ("loras.0.model_id", [LoraOrder("\x00")]),
        ("loras.0.model_id", [LoraOrder("'; DROP TABLE job; --")]),
    ],
)
def test_a_mix_that_cannot_be_is_refused_by_name(
    site: Runtime, people: People, field: str, mix: list[LoraOrder]
) -> None:
    with pytest.raises(InvalidInput) as refused:
        submit(site, people.user, order(loras=tuple(mix)))
    assert refused.value.field == field


def test_a_lora_is_recorded_by_its_file(site: Runtime, people: People) -> None:
    card = make_card(site, people.curator)
    generation_id = submit(site, people.user, order(loras=(LoraOrder(card.public_id, weight=0.8),)))
    with site.open_ctx(people.user, read_only=True) as ctx:
        lora = service.get_generation(ctx, generation_id).request["loras"][0]
    assert (lora["model_id"], lora["weight"], lora["text_encoder_weight"]) == (card.public_id, 0.8, None)
    assert len(lora["sha256"]) == 64
    assert lora["trigger"] == "lineart"


def test_the_same_lora_twice_is_refused(site: Runtime, people: People) -> None:
    card = make_card(site, people.curator)
    with pytest.raises(InvalidInput, match="already") as refused:
        submit(site, people.user, order(loras=(LoraOrder(card.public_id), LoraOrder(card.public_id, weight=0.1))))
    assert refused.value.field == "loras.1.model_id"


def test_a_lora_for_another_model_is_refused_before_queueing(site: Runtime, people: People) -> None:
    good, bad = make_card(site, people.curator), make_card(site, people.curator, "Wide", data=lora_bytes(inputs=768))
    with pytest.raises(IncompatibleLora, match="Wide") as refused:
        submit(site, people.user, order(loras=(LoraOrder(good.public_id), LoraOrder(bad.public_id))))
    assert refused.value.field == "loras.1.model_id"
    with site.open_ctx(people.user, read_only=True) as ctx:
        assert service.count_by_status(ctx)["all"] == 0


def test_a_broken_file_and_a_checkpoint_are_no_loras(site: Runtime, people: People) -> None:
    broken = make_card(site, people.curator, "Broken", data=b"\xff" * 64)
    whole = make_card(site, people.curator, "Whole", type=ModelType.CHECKPOINT)
    for card in (broken, whole):
        with pytest.raises(InvalidInput) as refused:
            submit(site, people.user, order(loras=(LoraOrder(card.public_id),)))
        assert refused.value.field == "loras.0.model_id"


def test_a_private_lora_of_somebody_else_does_not_exist(site: Runtime, people: People) -> None:
    card = make_card(site, people.curator, visibility=Visibility.PRIVATE)
    with pytest.raises(InvalidInput, match="no such model"):
        submit(site, people.user, order(loras=(LoraOrder(card.public_id),)))
    submit(site, people.curator, order(loras=(LoraOrder(card.public_id),)))


def test_guests_do_not_render(site: Runtime, people: People) -> None:
    with pytest.raises(NotSignedIn):
        submit(site, people.guest)


@pytest.mark.parametrize(
    ("access", "allowed"),
    [
        (GeneratorAccess.ADMINS, {"admin"}),
        (GeneratorAccess.CURATORS, {"admin", "curator"}),
        (GeneratorAccess.MEMBERS, {"admin", "curator", "user"}),
    ],
)
def test_the_generator_is_open_to_whom_the_setting_says(
    site: Runtime, people: People, access: GeneratorAccess, allowed: set[str]
) -> None:
    with site.open_ctx(people.admin) as ctx:
        change_settings(ctx, {"generator_access": access})
    for name in ("user", "curator", "admin"):
        if name in allowed:
            submit(site, getattr(people, name))
        else:
            with pytest.raises(GeneratorClosed):
                submit(site, getattr(people, name))


def test_the_sixth_active_request_is_refused_and_the_cap_is_each_persons_own(site: Runtime, people: People) -> None:
    first = [submit(site, people.user) for _ in range(5)]
    with pytest.raises(TooManyActive):
        submit(site, people.user)
    submit(site, people.other_user)
    with site.open_ctx(people.user) as ctx:
        service.cancel(ctx, first[0])
    submit(site, people.user)


def test_requests_at_once_do_not_get_past_the_cap(site: Runtime, people: People) -> None:
    barrier, outcomes = threading.Barrier(10), []
    actor = people.user

    def run() -> None:
        barrier.wait()
        try:
            outcomes.append(submit(site, actor))
        except TooManyActive:
            outcomes.append("refused")

    threads = [threading.Thread(target=run) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("refused") == 5
    assert len(outcomes) == 10


def test_whoever_is_at_the_cap_is_refused_before_the_prompt_is_read(site: Runtime, people: People) -> None:
    for _ in range(5):
        submit(site, people.user)
    unreadable = order("__nothing__")
    with pytest.raises(TooManyActive):
        submit(site, people.user, unreadable)
    with pytest.raises(TooManyActive):
        service.check_ahead(site, people.user, unreadable)


def test_a_plain_order_is_not_looked_at_ahead(site: Runtime, people: People) -> None:
    plain = order("a (red:1.2) [cat] " * 20, negative_prompt="a dog")
    assert service.check_ahead(site, people.guest, plain) == (plain, None)


@both_databases
def test_nothing_that_takes_long_is_done_in_the_transaction_that_writes(site: Runtime, people: People) -> None:
    """Choices and lengths of all prompts, LoRAs by their names and what their files say: also those of a sheet."""
    for title in ("Ink", "Wash", "Line"):
        make_card(site, people.curator, title, data=lora_bytes(seed=len(title) + 200))
    wanted = order(
        "a {red|green} cat <lora:Ink:0.5> " + "word " * 400, negative_prompt="{dog|cow}", width=64, height=64, seed=None
    )
    sheet = SheetOrder(
        AxisOrder("seed", tuple(range(6))), AxisOrder("prompt", ("<lora:Wash:1>", "{one|two} <lora:Line:1>"))
    )
    known, prompts = service.check_ahead(site, people.user, wanted, sheet)
    assert known.seed is not None
    profile = cProfile.Profile()
    with site.open_ctx(people.user) as ctx:
        render = profile.runcall(service.submit, ctx, known, sheet, prompts=prompts)
    called = {entry.code.co_name for entry in profile.getstats() if not isinstance(entry.code, str)}
    assert not called & {
        "make_choices", "parse_template", "measure_prompt", "find_card_by_name", "find_problem", "_read_header"
    }  # fmt: skip
    assert "plan_pictures" in called
    with site.open_ctx(people.user) as ctx:
        assert service.submit(ctx, known, sheet).request == render.request
    assert [picture["loras"][0]["title"] for picture in render.request["sheet"]["y"]["pictures"]] == ["Wash", "Line"]


@both_databases
def test_what_changes_after_a_look_ahead_counts(site: Runtime, people: People) -> None:
    card = make_card(site, people.curator, "Ink")
    known, prompts = service.check_ahead(site, people.user, order("a cat <lora:Ink:0.5>"))
    with site.open_ctx(people.user) as ctx:
        service.submit(ctx, known, prompts=prompts)
    with site.open_ctx(people.curator) as ctx:
        change_card(ctx, get_card(ctx, card.public_id), {"visibility": Visibility.PRIVATE})
    with pytest.raises(UnknownLoraTag), site.open_ctx(people.user) as ctx:
        service.submit(ctx, known, prompts=prompts)
    for _ in range(4):
        submit(site, people.user)
    with pytest.raises(TooManyActive), site.open_ctx(people.user) as ctx:
        service.submit(ctx, known, prompts=prompts)


def test_others_do_not_see_it_and_administrators_do(site: Runtime, people: People) -> None:
    generation_id = submit(site, people.user)
    for name in ("other_user", "curator", "guest"):
        for use in (service.get_generation, service.cancel, service.delete):
            with pytest.raises(NotFound), site.open_ctx(getattr(people, name)) as ctx:
                use(ctx, generation_id)
    assert show(site, people.admin, generation_id).id == generation_id
    with site.open_ctx(people.admin, read_only=True) as ctx:
        assert service.list_generations(ctx).items == []


def test_a_role_limit_on_a_base_model_holds(site: Runtime, people: People) -> None:
    with site.open_ctx(SYSTEM) as ctx:
        base = ctx.session.get(BaseModel, 1)
        assert base is not None
        base.allowed_roles = ["CURATOR"]
        ctx.session.add(base)
    submit(site, people.curator)
    submit(site, people.admin)
    with pytest.raises(AppError):
        submit(site, people.user)


def test_history_pages_from_new_to_old(site: Runtime, people: People) -> None:
    made = []
    for number in range(7):
        made.append(submit(site, people.user, order(f"picture {number}")))
        with site.open_ctx(people.user) as ctx:
            service.cancel(ctx, made[-1])
    seen: list[str] = []
    cursor = None
    with site.open_ctx(people.user, read_only=True) as ctx:
        while True:
            page = service.list_generations(ctx, status="cancelled", cursor=cursor, limit=3)
            seen += [generation.public_id for generation, _ in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert service.list_generations(ctx, status="active").items == []
        assert service.count_by_status(ctx)["cancelled"] == 7
        with pytest.raises(InvalidInput):
            service.list_generations(ctx, status="nonsense")
    assert seen == made[::-1]


def test_delete_ends_what_waits(site: Runtime, people: People) -> None:
    generation_id = submit(site, people.user)
    with site.open_ctx(people.user) as ctx:
        service.delete(ctx, generation_id)
    with site.open_ctx(people.user, read_only=True) as ctx:
        assert ctx.session.get(Generation, 1) is None
        with pytest.raises(NotFound):
            service.get_generation(ctx, generation_id)


def test_an_administrators_token_without_the_scope_is_refused(site: Runtime, people: People) -> None:
    from visionsuit.core.actor import Scope

    reader = replace(people.admin, scopes=frozenset({Scope.READ}))
    with pytest.raises(NotPermitted):
        submit(site, reader)


def test_the_work_of_one_request_is_bounded(site: Runtime, people: People) -> None:
    site.settings.limits.request_megapixel_steps = 1
    try:
        # 64 x 64 pixels, 8 pictures of 30 steps: 0.98 million pixel steps.
        submit(site, people.user, order(steps=30, count=8, width=64, height=64))
        with pytest.raises(InvalidInput, match="1 is the most") as refused:
            submit(site, people.user, order(steps=31, count=8, width=64, height=64))
        assert refused.value.field == "steps"
    finally:
        site.settings.limits.request_megapixel_steps = 4000


def test_the_pixels_of_one_request_are_bounded(site: Runtime, people: People) -> None:
    """Counted as they come out: of a sheet all cells, and after the second pass."""
    with site.open_ctx(SYSTEM) as ctx:
        base = ctx.session.get(BaseModel, 1)
        assert base is not None
        base.max_size = 2048
        ctx.session.add(base)
    large = {"width": 2048, "height": 2048, "steps": 1}
    sheet = SheetOrder(AxisOrder("seed", tuple(range(36))))
    twice = order(**large, hires=HiresOrder(2.0))
    # 36 pictures of 4.2, then of 16.8 megapixels.
    with site.open_ctx(people.user) as ctx:
        service.submit(ctx, order(**large), sheet)
    too_much = r"36 pictures of 4096x4096 are 604.0 megapixels; 256 is the most"
    with pytest.raises(InvalidInput, match=too_much) as refused, site.open_ctx(people.user) as ctx:
        service.submit(ctx, twice, sheet)
    assert refused.value.field == "hires.scale"
    submit(site, people.user, replace(twice, count=8))
    site.settings.limits.request_megapixels = 8
    submit(site, people.user, order(**large))
    with pytest.raises(InvalidInput, match=r"2 pictures .* 8 is the most") as refused:
        submit(site, people.user, order(**large, count=2))
    assert refused.value.field == "width"
