"""Prompts with choices, wildcards and LoRA tags: decided at submit, recorded twice, rendered picture by picture."""

import cProfile
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.conftest import People
from tests.generation.conftest import finished, lora_bytes, make_card, order, show, submit
from tests.postgres import both_databases
from visionsuit.core.actor import Actor
from visionsuit.core.config import Settings
from visionsuit.core.errors import InvalidInput
from visionsuit.engine.base import IncompatibleLora
from visionsuit.engine.prompt_syntax import MAX_CHUNKS
from visionsuit.engine.prompt_template import BadLoraTag, UnknownWildcard, WildcardsTooDeep
from visionsuit.generation import service
from visionsuit.generation.cells import cells_of
from visionsuit.generation.mix import NotALora
from visionsuit.generation.order import MAX_WEIGHT, LoraOrder
from visionsuit.generation.prepare import prepare
from visionsuit.generation.prompts import LoraTagRefused, Prompts, PromptTooLong, UnknownLoraTag
from visionsuit.generation.recipe import recipe_of
from visionsuit.generation.sheets import AxisOrder, SheetOrder
from visionsuit.generation.wildcards import list_wildcards, open_wildcards
from visionsuit.jobs.worker import Worker
from visionsuit.media.recipes import find_recipe, own_texts
from visionsuit.modelcards.tables import ModelType
from visionsuit.runtime import Runtime
from visionsuit.visibility import Visibility


@pytest.fixture
def write_list(settings: Settings) -> Callable[..., None]:
    def write(name: str, *lines: str) -> None:
        folder = settings.data_dir / "wildcards"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.txt").write_text("\n".join(lines), "utf-8")

    return write


def stored(site: Runtime, actor: Actor, generation_id: str) -> dict[str, Any]:
    with site.open_ctx(actor, read_only=True) as ctx:
        return service.get_generation(ctx, generation_id).request


def test_a_plain_prompt_is_kept_as_it_is(site: Runtime, people: People) -> None:
    text = "a (red:1.2) [cat] BREAK on a sofa"
    request = stored(site, people.user, submit(site, people.user, order(text, count=3)))
    assert request["prompt"] == text
    assert "pictures" not in request


def test_each_picture_makes_its_own_choices(site: Runtime, people: People) -> None:
    wanted = order("a {red|green|blue|grey} cat", negative_prompt="{dog|cow}", count=8)
    first, second = (stored(site, people.user, submit(site, people.user, wanted)) for _ in range(2))
    assert first["prompt"] == wanted.prompt
    assert [picture["seed"] for picture in first["pictures"]] == list(range(7, 15))
    prompts = {picture["prompt"] for picture in first["pictures"]}
    assert prompts <= {f"a {colour} cat" for colour in ("red", "green", "blue", "grey")}
    assert len(prompts) > 1
    assert {picture["negative_prompt"] for picture in first["pictures"]} <= {"dog", "cow"}
    assert first["pictures"] == second["pictures"]
    # A picture's choices follow from its own seed, not from its place in the request.
    alone = stored(
        site, people.user, submit(site, people.user, order(wanted.prompt, negative_prompt="{dog|cow}", seed=9))
    )
    assert alone["pictures"][0] == first["pictures"][2]


def test_wildcards_are_lines_of_the_sites_lists(site: Runtime, people: People, write_list: Callable[..., None]) -> None:
    write_list("Animal", "# what lives", "", "cat", "  {big|small} dog\t")
    prompts = {
        picture["prompt"]
        for picture in stored(site, people.user, submit(site, people.user, order("a __animal__", count=8)))["pictures"]
    }
    assert prompts <= {"a cat", "a big dog", "a small dog"}
    assert len(prompts) > 1
    write_list("Animal", "fox and hen")
    [picture] = stored(site, people.user, submit(site, people.user, order("a __ANIMAL__")))["pictures"]
    assert picture["prompt"] == "a fox and hen"


def test_a_request_looks_at_everything_once(site: Runtime, people: People, write_list: Callable[..., None]) -> None:
    write_list("animal", "cat")
    wanted = order("a {red|green} __animal__", negative_prompt="{dog|cow}")
    seeds = SheetOrder(AxisOrder("seed", tuple(range(18))), AxisOrder("prompt", ("{x|y}", "z")))
    profile = cProfile.Profile()
    with site.open_ctx(people.user) as ctx:
        profile.runcall(service.submit, ctx, wanted, seeds)
    calls = Counter[str]()
    for entry in profile.getstats():
        if not isinstance(entry.code, str):
            calls[entry.code.co_name] += entry.callcount
    # Four prompts, and the line of the list.
    assert calls["parse_template"] <= 5
    # Two prompts a seed, and one value of the axis.
    assert calls["make_choices"] <= 2 * 18 + 1
    assert calls["_files"] == 1


def test_one_request_has_one_state_of_the_lists(settings: Settings, write_list: Callable[..., None]) -> None:
    write_list("animal", "cat")
    prompts = Prompts(settings)
    assert prompts.read("a __animal__", 1, "prompt") == ("a cat", [])
    write_list("animal", "a dog that came later")
    write_list("place", "sofa")
    assert prompts.read("a __animal__", 2, "prompt") == ("a cat", [])
    with pytest.raises(UnknownWildcard):
        prompts.read("__place__", 1, "prompt")
    assert Prompts(settings).read("a __place__", 1, "prompt") == ("a sofa", [])


@both_databases
def test_one_name_is_looked_up_once(site: Runtime, people: People) -> None:
    make_card(site, people.curator, "Ink")
    wanted = order("".join(f"<lora:Ink:{number / 1000}>" for number in range(100)), count=8)
    profile = cProfile.Profile()
    with site.open_ctx(people.user) as ctx:
        render = profile.runcall(service.submit, ctx, wanted)
    [looks] = [one.callcount for one in profile.getstats() if getattr(one.code, "co_name", "") == "find_card_by_name"]
    assert looks == 1
    assert render.request["pictures"][0]["loras"][0]["weight"] == MAX_WEIGHT


def test_a_prompt_that_names_many_loras_is_refused_before_they_are_looked_up(site: Runtime, people: People) -> None:
    tags = "".join(f"<lora:{number}:1>" for number in range(25))
    with pytest.raises(LoraTagRefused, match="25 LoRAs; 12 is the most"):
        submit(site, people.user, order(f"x {tags}"))


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_an_unknown_wildcard_is_refused_by_name(site: Runtime, people: People, field: str) -> None:
    with pytest.raises(UnknownWildcard, match="__nothing__") as refused:
        submit(site, people.user, order(**{field: "a __nothing__"}))
    assert refused.value.field == field
    assert "/api/wildcards" in (refused.value.hint or "")


def test_names_of_wildcards_are_no_paths(settings: Settings, write_list: Callable[..., None]) -> None:
    write_list("good-name_2", "a")
    write_list("..", "b")
    write_list("bad name", "c")
    (settings.data_dir / "secret.txt").write_text("secret")
    (settings.data_dir / "wildcards" / "folder.txt").mkdir()
    assert [one.name for one in list_wildcards(settings)] == ["good-name_2"]
    for name in ("../secret", "secret", "..", "", "folder", "good-name_2/../good-name_2", "*"):
        assert open_wildcards(settings)(name) == ()


def test_wildcards_that_call_themselves_are_refused(
    site: Runtime, people: People, write_list: Callable[..., None]
) -> None:
    write_list("loop", "__loop__ __loop__")
    with pytest.raises(WildcardsTooDeep, match="loop"):
        submit(site, people.user, order("__loop__"))


@both_databases
def test_lora_tags_join_the_mix(site: Runtime, people: People) -> None:
    ink = make_card(site, people.curator, "Ink Style")
    wash = make_card(site, people.curator, "Wash")
    text = "a cat <lora:ink style:0.8:0.5>, sitting <lora:WASH:1.1>"
    request = stored(site, people.user, submit(site, people.user, order(text)))
    assert request["prompt"] == text
    assert request["loras"] == []
    [picture] = request["pictures"]
    assert picture["prompt"] == "a cat , sitting"
    assert [(lora["model_id"], lora["weight"], lora["text_encoder_weight"]) for lora in picture["loras"]] == [
        (ink.public_id, 0.5, 0.8),
        (wash.public_id, 1.1, None),
    ]


@both_databases
@pytest.mark.parametrize("name", ["Ink Style", "ink_style", "INK_STYLE", "  Ink   style "])
def test_a_tag_names_a_title_or_a_file(site: Runtime, people: People, name: str) -> None:
    card = make_card(site, people.curator, "Ink Style")
    request = stored(site, people.user, submit(site, people.user, order(f"a cat <lora:{name}:1>")))
    assert request["pictures"][0]["loras"][0]["model_id"] == card.public_id


@both_databases
def test_a_tag_prefers_a_lora_then_ones_own(site: Runtime, people: People) -> None:
    make_card(site, people.curator, "Ink", type=ModelType.CHECKPOINT)
    make_card(site, people.curator, "Ink", data=lora_bytes(seed=71))
    own = make_card(site, people.other_curator, "Ink", data=lora_bytes(seed=72), visibility=Visibility.PRIVATE)
    make_card(site, people.other_curator, "ink", data=lora_bytes(seed=73))
    request = stored(site, people.other_curator, submit(site, people.other_curator, order("x <lora:Ink:1>")))
    assert request["pictures"][0]["loras"][0]["model_id"] == own.public_id


def test_the_mixer_decides_about_its_own_loras(site: Runtime, people: People) -> None:
    card = make_card(site, people.curator, "Ink")
    mix = (LoraOrder(card.public_id, weight=0.3),)
    request = stored(site, people.user, submit(site, people.user, order("a cat <lora:Ink:1.5>", loras=mix)))
    [lora] = request["pictures"][0]["loras"]
    assert lora["weight"] == 0.3


def test_tags_of_one_lora_add_up(site: Runtime, people: People) -> None:
    make_card(site, people.curator, "Ink")
    request = stored(site, people.user, submit(site, people.user, order("<lora:Ink:0.5> cat <lora:ink:0.25:1>")))
    [lora] = request["pictures"][0]["loras"]
    assert (lora["weight"], lora["text_encoder_weight"]) == (1.5, 0.75)


def test_tags_that_cannot_be_are_refused_by_name(site: Runtime, people: People) -> None:
    make_card(site, people.curator, "Hidden", visibility=Visibility.PRIVATE)
    make_card(site, people.curator, "Whole", type=ModelType.CHECKPOINT)
    make_card(site, people.curator, "Wide", data=lora_bytes(inputs=7))
    make_card(site, people.curator, "Ink")
    for tag, error in {
        "<lora:nothing:1>": UnknownLoraTag,
        "<lora:Hidden:1>": UnknownLoraTag,
        "<lora:\u202e:1>": BadLoraTag,
        "<lora:%:1>": UnknownLoraTag,
        "<lora:Whole:1>": NotALora,
        "<lora:Wide:1>": IncompatibleLora,
        "<lora:Ink:2.5>": LoraTagRefused,
        "<lora:Ink:1:-9>": LoraTagRefused,
        "<lora:Ink:much>": BadLoraTag,
    }.items():
        with pytest.raises(error) as refused:
            submit(site, people.user, order(f"a cat {tag}"))
        assert refused.value.field == "prompt"
        assert tag.replace("\u202e", "") in refused.value.message
    with pytest.raises(LoraTagRefused, match="negative") as refused:
        submit(site, people.user, order(negative_prompt="<lora:Ink:1>"))
    assert refused.value.field == "negative_prompt"


def test_tags_count_among_the_loras_of_a_mix(site: Runtime, people: People) -> None:
    tags = []
    for number in range(site.settings.limits.loras_per_mix + 1):
        make_card(site, people.curator, f"Ink {number}", data=lora_bytes(seed=100 + number))
        tags.append(f"<lora:Ink {number}:0.1>")
    submit(site, people.user, order(" ".join(tags[1:])))
    with pytest.raises(LoraTagRefused, match="12 is the most"):
        submit(site, people.user, order(" ".join(tags)))


def test_what_grows_too_long_is_refused(site: Runtime, people: People, write_list: Callable[..., None]) -> None:
    write_list("long", "x" * 1900)
    with pytest.raises(PromptTooLong, match="4000"):
        submit(site, people.user, order("__long__ " * 3))
    with pytest.raises(PromptTooLong, match=f"{MAX_CHUNKS} is the most"):
        submit(site, people.user, order(negative_prompt="a BREAK " * (MAX_CHUNKS + 1)))
    submit(site, people.user, order("a BREAK " * (MAX_CHUNKS - 1)))


def test_pictures_are_rendered_by_what_they_are(site: Runtime, people: People) -> None:
    make_card(site, people.curator, "Ink")
    make_card(site, people.curator, "Wash")
    wanted = order("a {red|green} cat {<lora:Ink:0.5>|<lora:Wash:1>|}", count=8)
    generation_id = submit(site, people.user, wanted)
    request = stored(site, people.user, generation_id)
    task = prepare(site, generation_id)
    assert 1 < len(task.for_engine) <= 6
    assert sorted(seed for part in task.for_engine for seed in part.seeds) == list(range(7, 15))
    by_seed = {picture["seed"]: picture for picture in request["pictures"]}
    for part in task.for_engine:
        for seed in part.seeds:
            assert part.prompt == by_seed[seed]["prompt"]
            assert [(lora.name, lora.weight) for lora in part.loras] == [
                (lora["title"], lora["weight"]) for lora in by_seed[seed]["loras"]
            ]
            assert all(lora.path.is_file() for lora in part.loras)


def test_pictures_come_in_the_order_of_their_seeds(site: Runtime, people: People, worker: Worker) -> None:
    generation_id = submit(site, people.user, order("a {red|green|blue} cat", count=6))
    shown = finished(site, people.user, generation_id)
    assert shown.status == "completed"
    assert [image.seed for image in shown.images] == list(range(7, 13))
    assert shown.step == shown.steps == 18
    assert [picture.seed for picture in shown.request.pictures] == list(range(7, 13))


def test_the_recipe_keeps_template_and_prompt(site: Runtime, people: People) -> None:
    make_card(site, people.curator, "Ink")
    template = "a {red|green} cat <lora:Ink:0.5>"
    request = stored(site, people.user, submit(site, people.user, order(template, negative_prompt="blurry")))
    recipe = recipe_of(request, cells_of(request)[0])
    assert recipe.prompt in ("a red cat", "a green cat")
    assert recipe.template == template
    assert recipe.negative_prompt == "blurry"
    assert recipe.negative_template is None
    assert [lora.weight for lora in recipe.loras] == [0.5]
    assert find_recipe(own_texts(recipe)) == recipe
    other = stored(site, people.user, submit(site, people.user, order("a cat")))
    plain = recipe_of(other, cells_of(other)[0])
    assert plain.template is None


def test_a_saved_picture_is_called_by_its_own_prompt(
    site: Runtime, people: People, worker: Worker, client: TestClient, bearer: Callable[[Actor], dict[str, str]]
) -> None:
    generation_id = submit(site, people.curator, order("a {red|red} cat"))
    finished(site, people.curator, generation_id)
    saved = client.post(f"/api/generations/{generation_id}/save", json={}, headers=bearer(people.curator))
    assert saved.status_code == 200, saved.text
    [item] = saved.json()["items"]
    assert item["title"] == "a red cat"
    detail = client.get(f"/api/images/{item['id']}", headers=bearer(people.curator)).json()
    assert detail["recipe"]["template"] == "a {red|red} cat"


def test_sending_what_was_answered_again_makes_the_same_choices(
    site: Runtime, people: People, client: TestClient, bearer: Callable[[Actor], dict[str, str]]
) -> None:
    make_card(site, people.curator, "Ink")
    headers = bearer(people.user)
    body = {"prompt": "a {red|green|blue} cat <lora:Ink:0.5>", "count": 4, "steps": 2}
    first = client.post("/api/generations", json=body, headers=headers).json()["request"]
    again = {key: first[key] for key in ("prompt", "negative_prompt", "seed", "count", "steps", "loras")}
    second = client.post("/api/generations", json=again, headers=headers).json()["request"]
    assert first["pictures"] == second["pictures"]


def test_refusals_over_rest(
    site: Runtime, people: People, client: TestClient, bearer: Callable[[Actor], dict[str, str]]
) -> None:
    for prompt, code in {"a __nothing__": "unknown_wildcard", "a <lora:no:1>": "unknown_lora_tag"}.items():
        answer = client.post("/api/generations", json={"prompt": prompt}, headers=bearer(people.user))
        assert answer.status_code == 422
        assert answer.json()["error"]["code"] == code
        assert answer.json()["error"]["field"] == "prompt"


def test_wildcards_are_listed_for_members(
    site: Runtime,
    people: People,
    client: TestClient,
    bearer: Callable[[Actor], dict[str, str]],
    write_list: Callable[..., None],
) -> None:
    assert client.get("/api/wildcards").status_code == 401
    assert client.get("/api/wildcards", headers=bearer(people.user)).json() == {"items": []}
    write_list("b", "1", "2", "3", "4")
    write_list("A", "x")
    write_list("empty", "# nothing")
    assert client.get("/api/wildcards", headers=bearer(people.user)).json()["items"] == [
        {"name": "A", "count": 1, "examples": ["x"]},
        {"name": "b", "count": 4, "examples": ["1", "2", "3"]},
    ]


def test_a_prompt_is_counted_while_it_is_written(
    site: Runtime, people: People, client: TestClient, bearer: Callable[[Actor], dict[str, str]]
) -> None:
    card = make_card(site, people.curator, "Ink")
    headers = bearer(people.user)

    def check(prompt: str, negative: str = "") -> dict[str, Any]:
        answer = client.post(
            "/api/prompts/check", json={"prompt": prompt, "negative_prompt": negative, "seed": 7}, headers=headers
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    room = client.get("/api/base-models").json()["items"][0]["prompt_tokens"] - 2
    plain = check("red red")
    assert plain["prompt"] == {
        "text": "red red", "tokens": 2, "chunks": 1, "room": room, "loras": [], "problems": [],
    }  # fmt: skip
    assert plain["negative_prompt"]["tokens"] == 0
    assert check("red " * (room + 1))["prompt"]["chunks"] == 2
    assert check("red BREAK (red:1.2)")["prompt"]["tokens"] == 2
    tagged = check("{red|red} <lora:Ink:0.5><lora:no:1>", "__nothing__")
    assert tagged["prompt"]["text"] == "red"
    assert tagged["prompt"]["loras"][0]["tag"] == "<lora:Ink:0.5>"
    assert tagged["prompt"]["loras"][0]["model_id"] == card.public_id
    assert [problem["code"] for problem in tagged["prompt"]["problems"]] == ["unknown_lora_tag"]
    assert [problem["code"] for problem in tagged["negative_prompt"]["problems"]] == ["unknown_wildcard"]
    # The choices are those that the request will make.
    sent = client.post("/api/generations", json={"prompt": "a {b|c|d|e} f", "seed": 7}, headers=headers).json()
    assert check("a {b|c|d|e} f")["prompt"]["text"] == sent["request"]["pictures"][0]["prompt"]


def test_checks_are_bounded(
    site: Runtime, people: People, client: TestClient, bearer: Callable[[Actor], dict[str, str]]
) -> None:
    body = {"prompt": "x" * 4001}
    assert client.post("/api/prompts/check", json=body).status_code == 401
    assert client.post("/api/prompts/check", json=body, headers=bearer(people.user)).status_code == 422
    for prompt in ("((((" * 1000, "{a|" * 1300, "<lora:" * 600, "BREAK " * 600, "😀" * 4000):
        assert (
            client.post("/api/prompts/check", json={"prompt": prompt}, headers=bearer(people.user)).status_code == 200
        )


def test_names_are_found_the_same_way_by_everybody_who_sees_the_card(site: Runtime, people: People) -> None:
    make_card(site, people.curator, "Ink", visibility=Visibility.PRIVATE)
    for actor in (people.curator, people.admin):
        submit(site, actor, order("x <lora:ink:1>"))
    for actor in (people.user, people.other_curator):
        with pytest.raises(InvalidInput, match="not shared"):
            submit(site, actor, order("x <lora:ink:1>"))
    assert show(site, people.curator, submit(site, people.curator, order("x <lora:ink:1>"))).request.pictures
