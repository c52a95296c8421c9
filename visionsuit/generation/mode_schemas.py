"""What routes take and answer beyond text to image: pictures to begin with, second passes, variations, sheets."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from visionsuit.generation.order import Borders, HiresOrder, InitOrder, VariationOrder
from visionsuit.generation.sheets import AxisOrder
from visionsuit.search.tiles import Thumb


class BordersIn(BaseModel):
    left: int = Field(0, description="Pixels of the canvas beyond the picture.", examples=[64])
    top: int = 0
    right: int = 0
    bottom: int = 0


class InitIn(BaseModel):
    """A picture to begin with, by one of the three ids."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"input_id": "q1Zk3vQ0h8m1TgYw", "strength": 0.6}]})

    image_id: str | None = Field(None, description="An image page that you see.")
    generation_image_id: str | None = Field(None, description="An entry of a render's `images` that you see.")
    input_id: str | None = Field(None, description="From POST /api/generations/inputs.")
    strength: float = Field(
        0.75, description="0 to 1: how much may become different. 0 only with `hires`, which then just enlarges."
    )
    mask_input_id: str | None = Field(None, description="An upload of the picture's shape; white is repainted.")
    mask_blur: float = Field(4.0, description="0 to 64 pixels of soft edge.")
    outpaint: BordersIn | None = Field(None, description="What is painted beyond the picture's edges.")
    resize: str = Field("crop", description="`crop`, `fit` or `stretch` where the shapes differ.")

    def as_order(self) -> InitOrder:
        outpaint = None if self.outpaint is None else Borders(**self.outpaint.model_dump())
        return InitOrder(**self.model_dump(exclude={"outpaint"}), outpaint=outpaint)


class HiresIn(BaseModel):
    """A second pass over the picture, enlarged."""

    scale: float = Field(2.0, description="Over 1, up to 4.", examples=[1.5])
    strength: float = Field(0.5, description="Over 0, up to 1.")
    steps: int | None = Field(None, description="The same as the first pass if left out.")

    def as_order(self) -> HiresOrder:
        return HiresOrder(**self.model_dump())


class VariationIn(BaseModel):
    """The noise of another seed mixed in. Further pictures take the variation seeds that follow, and the same seed."""

    seed: int | None = Field(None, description="0 to 4294967295; a random one if left out.")
    strength: float = Field(description="0 (the same picture) to 1 (the other seed's).", examples=[0.1])

    def as_order(self) -> VariationOrder:
        return VariationOrder(**self.model_dump())


class AxisIn(BaseModel):
    axis: str = Field(
        description="`lora_weight`, `steps`, `guidance`, `sampler`, `seed`, `strength` or `prompt`.",
        examples=["lora_weight"],
    )
    values: list[float | int | str] = Field(max_length=200, examples=[[0.0, 0.4, 0.7, 1.0]])
    lora: int = Field(0, description="Which of the base's LoRAs, from 0; for `lora_weight`.")
    labels: list[str] | None = Field(None, max_length=200, description="Written beside the values instead of them.")

    def as_order(self) -> AxisOrder:
        labels = None if self.labels is None else tuple(self.labels)
        return AxisOrder(self.axis, tuple(self.values), self.lora, labels)


class InputOut(BaseModel):
    """A picture that was sent to work from. Kept for a day after its last use."""

    id: str = Field(examples=["q1Zk3vQ0h8m1TgYw"])
    width: int = Field(description="Pixels, turned as it is shown.", examples=[768])
    height: int = Field(examples=[512])
    url: str = Field(examples=["/api/storage/outputs/6O2vzzqBXDXK-k3E"])


class InitOut(InitIn):
    """As it was sent; `url` and the size are those of the picture's file."""

    url: str | None
    mask_url: str | None
    source_width: int
    source_height: int


class HiresOut(HiresIn):
    width: int = Field(description="Of the result; the request's width and height are the first pass's.")
    height: int


class RequestLoraOut(BaseModel):
    model_id: str
    version_id: str
    title: str
    trigger: str
    weight: float
    text_encoder_weight: float | None


class AxisPictureOut(BaseModel):
    """What the choices and LoRA tags of a value of a `prompt` axis came to."""

    prompt: str
    loras: list[RequestLoraOut]


class AxisOut(BaseModel):
    axis: str
    lora: int | None
    label: str
    values: list[float | int | str]
    labels: list[str]
    pictures: list[AxisPictureOut] = Field(default_factory=list, description="For each value of a `prompt` axis.")


class SheetSidesOut(BaseModel):
    x: AxisOut
    y: AxisOut | None
    control: bool


class CellOut(BaseModel):
    """Number of the value on each side; null without one, as for the control."""

    x: int | None
    y: int | None


class CardSheetOut(BaseModel):
    """A test sheet of a card's file."""

    generation_id: str | None = Field(description="null for those who do not see the render.")
    version_id: str
    status: str = Field(examples=["completed"])
    picture: "CardSheetPictureOut | None" = Field(description="null until it is rendered.")
    wait_reason: str | None
    error: str | None
    base_model_label: str
    prompt: str
    seed: int
    created_at: datetime


class CardSheetPictureOut(BaseModel):
    url: str
    thumb: Thumb
    width: int
    height: int


class CardSheetListOut(BaseModel):
    items: list[CardSheetOut] = Field(description="The newest first.")


class SheetPictureOut(BaseModel):
    """All pictures of a sheet on one, with labels."""

    id: str
    url: str
    thumb: Thumb
    width: int
    height: int
    saved: bool
