"""What the generator's routes take and answer."""

from datetime import datetime
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from visionsuit.accounts.refs import OwnerRef
from visionsuit.galleries.out import GalleryTile
from visionsuit.generation.mode_schemas import (
    AxisIn,
    CellOut,
    HiresIn,
    HiresOut,
    InitIn,
    InitOut,
    RequestLoraOut,
    SheetPictureOut,
    SheetSidesOut,
    VariationIn,
)
from visionsuit.generation.order import LoraOrder, Order
from visionsuit.generation.sheets import SheetOrder
from visionsuit.images.out import ImageTile
from visionsuit.search.tiles import Thumb
from visionsuit.visibility import Visibility


class LoraIn(BaseModel):
    model_id: str = Field(description="Public id of a model card that you see.", examples=["q1Zk3vQ0h8m1TgYw"])
    version_id: str | None = Field(None, description="A version of the card; the primary one if left out.")
    weight: float = Field(1.0, description="-2 to 2.", examples=[0.8])
    text_encoder_weight: float | None = Field(None, description="-2 to 2; the same as `weight` if left out.")


class GenerationIn(BaseModel):
    """What is left out is what the base model says; the seed is then random, and recorded."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"prompt": "a red cat on a sofa", "steps": 20, "seed": 7, "width": 256, "height": 256}]
        }
    )

    prompt: str = Field(
        examples=["a red cat on a sofa"],
        description="May hold `(word:1.2)`, `[word]`, `BREAK`, `{a|b}`, `__wildcard__` and `<lora:name:0.8>`.",
    )
    negative_prompt: str = Field("", description="The same but LoRA tags.")
    base_model_id: str | None = Field(None, description="From GET /api/base-models; the default one if left out.")
    width: int | None = Field(None, description="Pixels, within the base model's limits.")
    height: int | None = None
    steps: int | None = Field(None, description="1 to 200.")
    guidance: float | None = Field(None, description="0 to 40.")
    seed: int | None = Field(None, description="0 to 4294967295. Further pictures take the seeds that follow.")
    count: int = Field(1, description="Pictures, 1 to 8.")
    sampler: str | None = Field(None, description="From GET /api/base-models.")
    schedule: str | None = None
    loras: list[LoraIn] = Field(default_factory=list, max_length=100, description="Up to 12.")
    init: InitIn | None = Field(
        None, description="A picture to begin with. A size left out is then its own, with its borders, within limits."
    )
    hires: HiresIn | None = None
    variation: VariationIn | None = None
    bucket: int | None = Field(
        None,
        description="1, 2, 4 or 8: every call of the model has so many pictures, and the same request on the same "
        "machine is the same to the last bit, whatever else runs. Slower; left out, all is equal but for rounding.",
    )

    def as_order(self) -> Order:
        fields = self.model_dump(exclude={"loras", "init", "hires", "variation"})
        return Order(
            **fields,
            loras=tuple(LoraOrder(**lora.model_dump()) for lora in self.loras),
            init=None if self.init is None else self.init.as_order(),
            hires=None if self.hires is None else self.hires.as_order(),
            variation=None if self.variation is None else self.variation.as_order(),
        )


class SheetIn(BaseModel):
    """One picture for every value of `x`, or for every pair of values of `x` and `y`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "base": {"prompt": "a fox", "seed": 7, "loras": [{"model_id": "q1Zk3vQ0h8m1TgYw"}]},
                    "x": {"axis": "lora_weight", "values": [0, 0.5, 1]},
                    "y": {"axis": "steps", "values": [8, 16]},
                    "control": True,
                }
            ]
        }
    )

    base: GenerationIn = Field(description="With a count of 1.")
    x: AxisIn
    y: AxisIn | None = None
    control: bool = Field(False, description="One more picture, without the LoRAs whose weights change (or any).")

    def as_order(self) -> SheetOrder:
        return SheetOrder(self.x.as_order(), None if self.y is None else self.y.as_order(), self.control)


class TestSheetIn(BaseModel):
    """What is left out is what the base model says."""

    __test__ = False
    model_config = ConfigDict(json_schema_extra={"examples": [{"prompt": "a fox", "seed": 7}]})

    prompt: str = Field("", description="Without the trigger; one that the base model suggests if left out.")
    base_model_id: str | None = None
    seed: int | None = None
    steps: int | None = None
    width: int | None = None
    height: int | None = None

    def as_order(self) -> Order:
        return Order(**self.model_dump())


class ErrorOut(BaseModel):
    code: str
    message: str


class PictureOut(BaseModel):
    id: str
    url: str = Field(description="PNG with the recipe inside.")
    thumb: Thumb
    seed: int
    width: int
    height: int
    saved: bool = Field(description="Whether it was saved as an image page.")
    label: str | None = Field(None, description="What is different about it, on a sheet.")
    cell: CellOut | None = Field(None, description="Its place on the sheet.")
    variation_seed: int | None = None


class RequestPictureOut(BaseModel):
    """What the choices and LoRA tags of the prompts came to for one picture."""

    seed: int
    prompt: str
    negative_prompt: str
    loras: list[RequestLoraOut]


class RequestOut(BaseModel):
    """The request, complete: sending it again gives the same pictures."""

    prompt: str
    negative_prompt: str
    base_model_id: str
    base_model_label: str
    width: int
    height: int
    steps: int
    guidance: float
    seed: int
    count: int
    sampler: str
    schedule: str
    loras: list[RequestLoraOut]
    pictures: list[RequestPictureOut] = Field(
        default_factory=list, description="For each picture, where the prompts have choices or LoRA tags; else empty."
    )
    init: InitOut | None = None
    hires: HiresOut | None = None
    variation: VariationIn | None = None
    bucket: int = Field(0, description="Pictures in every call in the reproducible mode; 0 without it.")
    sheet: SheetSidesOut | None = None


class ProgressOut(BaseModel):
    """A render without its request: what the event stream repeats."""

    id: str
    status: str = Field(description="pending, queued, running, completed, failed or cancelled", examples=["running"])
    phase: str | None = Field(
        description="loading, encoding, denoising, waiting, decoding or saving", examples=["denoising"]
    )
    progress: float = Field(description="0 to 1", examples=[0.35])
    step: int
    steps: int
    preview: str | None = Field(description="Data URI of the picture so far, small.")
    images: list[PictureOut]
    sheet: SheetPictureOut | None = None
    error: ErrorOut | None
    place: int | None = Field(description="Place among those that wait, from 1.")
    eta_s: float | None = Field(description="Seconds until it is done, as far as anybody knows.")
    wait_reason: str | None = Field(examples=["Next: starts when the running render is done."])
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    duration_s: float | None


class GenerationOut(ProgressOut):
    request: RequestOut


class GenerationListOut(BaseModel):
    items: list[GenerationOut]
    next_cursor: str | None


class SaveIn(BaseModel):
    """Into an own gallery by id, or the own one of that title, which is made if there is none, or into none."""

    gallery_id: str | None = None
    gallery_title: str | None = Field(None, examples=["Cats"])
    visibility: Visibility = Field(Visibility.PRIVATE, description="Of the image pages and of a new gallery.")
    image_ids: list[str] | None = Field(None, max_length=100, description="Some of the pictures; all if left out.")


class SavedOut(BaseModel):
    items: list[ImageTile]
    gallery: GalleryTile | None


class CountsOut(BaseModel):
    """How many of one's own renders are in each state."""

    all: int
    pending: int
    queued: int
    running: int
    completed: int
    failed: int
    cancelled: int
    unseen: int = Field(description="Completed, and not looked at yet.")


class DefaultOut(BaseModel):
    width: int
    height: int
    steps: int
    guidance: float
    sampler: str
    schedule: str


class BaseModelOut(BaseModel):
    id: str
    label: str
    family: str
    description: str
    default: DefaultOut
    sizes: list[list[int]] = Field(description="Suggested [width, height] pairs.")
    min_size: int
    max_size: int
    size_step: int
    prompt_tokens: int = Field(description="Tokens that one chunk of the prompt holds.")
    suggestions: list[str]
    samplers: list[str] = Field(description="Ids of the samplers that it is rendered with.")
    abilities: list[str] = Field(
        description="What it may be asked for: `loras`, `pictures` (to begin with, also for a second pass), `masks` "
        "(and borders), `variations`.",
        examples=[["loras", "pictures", "masks", "variations"]],
    )
    is_default: bool


class ChoiceOut(BaseModel):
    id: str
    label: str


class BaseModelListOut(BaseModel):
    items: list[BaseModelOut]
    samplers: list[ChoiceOut]
    schedules: list[ChoiceOut]


class WildcardOut(BaseModel):
    name: str = Field(description="Stands in a prompt as `__name__`.", examples=["animal"])
    count: int = Field(description="Entries.")
    examples: list[str]


class WildcardListOut(BaseModel):
    items: list[WildcardOut]


class PromptIn(BaseModel):
    prompt: str
    negative_prompt: str = ""
    base_model_id: str | None = Field(None, description="From GET /api/base-models; the default one if left out.")
    seed: int = Field(0, ge=0, lt=2**32, description="Of the picture whose choices are looked at.")


class PromptLoraOut(RequestLoraOut):
    tag: str = Field(description="As it stands in the prompt.", examples=["<lora:Ink:0.8>"])


class PromptProblemOut(BaseModel):
    """What a request with this prompt would be refused for."""

    code: str
    message: str
    hint: str | None = None


class PromptOut(BaseModel):
    """`tokens` in `chunks` of at most `room`; null where the base model's tokenizer cannot be read."""

    text: str = Field(description="What the text encoder gets for this seed: choices made, LoRA tags taken out.")
    tokens: int | None
    chunks: int | None
    room: int | None
    loras: list[PromptLoraOut]
    problems: list[PromptProblemOut]


class PromptCheckOut(BaseModel):
    prompt: PromptOut
    negative_prompt: PromptOut


class QueueItemOut(BaseModel):
    """A job as administrators see it; never the prompt."""

    id: str
    generation_id: str | None
    owner: OwnerRef | None
    status: str
    phase: str | None
    step: int
    steps: int
    place: int | None
    eta_s: float | None
    wait_reason: str | None
    priority: int = Field(description="Larger ones go first; requests have 0, test sheets -10.")
    attempts: int
    created_at: datetime
    started_at: datetime | None


class JobChangeIn(BaseModel):
    priority: int = Field(ge=-100, le=100, examples=[10])


class BlockIn(BaseModel):
    reason: str = Field(description="The person reads it.", examples=["Too many requests at once"], max_length=2000)
    until: AwareDatetime | None = Field(None, description="For good if left out.")


class BlockOut(BaseModel):
    """A person who may not render."""

    user: OwnerRef
    reason: str
    until: datetime | None
    created_at: datetime


class BlockListOut(BaseModel):
    items: list[BlockOut]


class WorkerOut(BaseModel):
    id: str
    host: str
    pid: int
    slots: int
    heartbeat_at: datetime
    engine: dict[str, Any]


class QueueOut(BaseModel):
    paused: bool = Field(description="Nothing begins.")
    draining: bool = Field(description="Nothing new is taken.")
    waiting: list[QueueItemOut]
    running: list[QueueItemOut]
    engine: dict[str, Any] = Field(description="The engine of the process that answers.")
    workers: list[WorkerOut]


class FailureOut(BaseModel):
    """A failed render with everything that is known, for administrators."""

    id: str
    generation_id: str | None
    owner: OwnerRef | None
    error: ErrorOut
    trace: str
    attempts: int
    device_seconds: float
    created_at: datetime
    finished_at: datetime | None


class FailureListOut(BaseModel):
    items: list[FailureOut]
    next_cursor: str | None
