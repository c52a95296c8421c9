"""/api/loras: which of them fit a base model, and how those of a mix get on with each other."""

from pydantic import BaseModel, ConfigDict, Field

from visionsuit.engine.conflicts import Verdict, say
from visionsuit.generation.conflicts import METER, Conflicts, find_files
from visionsuit.generation.fits import answer_fits, ask_fits
from visionsuit.generation.order import LoraOrder
from visionsuit.generation.schemas import LoraIn
from visionsuit.router import Router
from visionsuit.web import ActorDep, RuntimeDep

router = Router(tags=["generator"])


class MixIn(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "loras": [
                        {"model_id": "q1Zk3vQ0h8m1TgYw", "weight": 0.8},
                        {"model_id": "Pf0aTn7XcKe4LrVb", "weight": 0.6, "text_encoder_weight": 0.4},
                    ]
                }
            ]
        }
    )

    base_model_id: str | None = Field(None, description="From GET /api/base-models; the default one if left out.")
    loras: list[LoraIn] = Field(max_length=100, description="Up to 12.")


class LayerOut(BaseModel):
    name: str = Field(examples=["unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_v"])
    overlap: float = Field(examples=[0.62])


class MeetingOut(BaseModel):
    """Two LoRAs of the mix, by their places in it."""

    first: int = Field(examples=[0])
    second: int = Field(examples=[1])
    sentence: str = Field(examples=["“Neon” drowns “Ink”: its change is 7 times as large."])
    verdict: Verdict
    overlap: float = Field(
        examples=[0.31],
        description="-1 to 1 over the layers both change: 1 the same thing twice, 0 no conflict, -1 opposite things.",
    )
    share: float = Field(description="Of the first in the sizes of both, 0 to 1, weights included.", examples=[0.12])
    common: float = Field(description="How much of the smaller one lies in layers both change.", examples=[1.0])
    layers: list[LayerOut] = Field(description="Where the overlap is largest, at most five.")


class ConflictsOut(BaseModel):
    pairs: list[MeetingOut] = Field(description="The worst first.")
    is_complete: bool = Field(description="False while files are still being measured: ask again in a second.")
    unmeasured: list[int] = Field(description="Places of LoRAs that cannot be measured, or do not fit the base model.")
    partial: list[int] = Field(
        description="Places of LoRAs of which a part is not counted, since what it does depends on the base model's "
        "weights: turned layers (OFT), magnitudes (DoRA)."
    )


class FitsIn(BaseModel):
    base_model_id: str | None = Field(None, description="From GET /api/base-models; the default one if left out.")
    model_ids: list[str] = Field(max_length=100, examples=[["q1Zk3vQ0h8m1TgYw"]])


class FitOut(BaseModel):
    model_id: str
    fits: bool | None = Field(description="null where the file cannot be looked at now.")
    reason: str | None = Field(
        examples=["The LoRA was made for SDXL (cross attention 2048), the base model is SD 1.x (768)."]
    )


class FitsOut(BaseModel):
    items: list[FitOut] = Field(description="Only LoRAs that you see.")


@router.post("/api/loras/fits", summary="Which LoRAs work with a base model")
def check_fits(runtime: RuntimeDep, actor: ActorDep, body: FitsIn) -> FitsOut:
    """By the headers of their files, not by what their pages say. Changes nothing."""
    with runtime.open_ctx(actor, read_only=True) as ctx:
        question = ask_fits(ctx, body.base_model_id, body.model_ids)
    # No transaction is open here: files may have to be read.
    return FitsOut(
        items=[
            FitOut(model_id=one.model_id, fits=one.problem is None if one.is_known else None, reason=one.problem)
            for one in answer_fits(runtime, question)
        ]
    )


@router.post("/api/loras/conflicts", summary="Which LoRAs of a mix get in each other's way")
def measure_conflicts(runtime: RuntimeDep, actor: ActorDep, body: MixIn) -> ConflictsOut:
    """From the files alone, without rendering: per pair how much they do the same thing to the same layers, and how
    large they are against each other. Weights only scale, so once measured a mix is answered while a slider moves.
    Changes nothing."""
    with runtime.open_ctx(actor, read_only=True) as ctx:
        base, files = find_files(ctx, body.base_model_id, [LoraOrder(**lora.model_dump()) for lora in body.loras])
    # No transaction is open here: files may have to be read.
    return _out(METER.answer(runtime, base, files))


def _out(found: Conflicts) -> ConflictsOut:
    titles = [file.title for file in found.files]
    return ConflictsOut(
        pairs=[
            MeetingOut(
                first=one.first,
                second=one.second,
                sentence=say(one, titles[one.first], titles[one.second]),
                verdict=one.verdict,
                overlap=round(one.overlap, 4),
                share=round(one.balance / (1 + one.balance), 4),
                common=round(one.shared, 4),
                layers=[LayerOut(name=name, overlap=round(overlap, 4)) for name, overlap in one.worst],
            )
            for one in found.meetings
        ],
        is_complete=found.is_complete,
        unmeasured=found.unmeasured,
        partial=found.partial,
    )
