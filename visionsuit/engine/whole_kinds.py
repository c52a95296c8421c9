"""Text to image pipelines of diffusers that are rendered whole, and what each of them can do. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionsuit.engine.base import Ability, ModelUnloadable


@dataclass(frozen=True, slots=True)
class WholeKind:
    """
    Attributes:
        loras: components whose layers LoRAs change.
        from_picture, inpainting: diffusers' classes over the same components that begin with a picture, and that
            repaint a part of one.
        rounds_down: how these come from a strength to a number of steps; others round up.
        guidance: what is asked where a person says nothing.
        true_guidance: unless it was distilled, it has guidance under another name than the others.
        side: of the pictures that it is made for, in pixels, where its configuration says another thing or none.
        size_step: sides are multiples of it, whatever its VAE would take.
        own_sampler: which one its own scheduler is, for which no other can stand in.
    """

    loras: tuple[str, ...] = ()
    from_picture: str | None = None
    inpainting: str | None = None
    rounds_down: bool = False
    guidance: float = 5.0
    true_guidance: bool = False
    side: int = 0
    size_step: int = 16
    own_sampler: str = ""
    least_steps: int = 1

    @property
    def abilities(self) -> tuple[Ability, ...]:
        has = {
            Ability.LORAS: bool(self.loras),
            Ability.PICTURES: self.from_picture is not None,
            Ability.MASKS: self.inpainting is not None,
        }
        return tuple(ability for ability in Ability if has.get(ability, False))

    def defaults(self, scheduler: Mapping[str, Any]) -> dict[str, Any]:
        """What a request has where a person chooses nothing, by its scheduler's configuration."""
        if str(scheduler.get("_class_name", "")).startswith("FlowMatch"):
            return {"guidance": self.guidance, "sampler": "euler", "schedule": "default"}
        if self.own_sampler:
            steps = {"steps": 8} if self.own_sampler == "lcm" else {}
            return {"guidance": self.guidance, "sampler": self.own_sampler, "schedule": "default", **steps}
        spacing = {"schedule": "default"} if scheduler.get("use_flow_sigmas") else {}
        return {"guidance": self.guidance, **spacing}


_TRANSFORMER = ("transformer",)
_WITH_TEXT = ("transformer", "text_encoder")
_BY_NAME = {
    "AuraFlow": WholeKind(_TRANSFORMER, guidance=3.5, side=1024),
    # Its class for inpainting asks for a setting that no Chroma has.
    "Chroma": WholeKind(_WITH_TEXT, "ChromaImg2ImgPipeline"),
    "CogView3Plus": WholeKind(own_sampler="ddim"),
    "CogView4": WholeKind(_TRANSFORMER),
    "Flux": WholeKind((*_WITH_TEXT, "text_encoder_2"), "FluxImg2ImgPipeline", "FluxInpaintPipeline", guidance=3.5),
    "HunyuanDiT": WholeKind(),
    # A latent is eight pixels, and it calculates with eight latents at once.
    "Kandinsky3": WholeKind(("unet",), "Kandinsky3Img2ImgPipeline", rounds_down=True, guidance=3.0, size_step=64),
    "LatentConsistencyModel": WholeKind(
        ("unet", "text_encoder"),
        "LatentConsistencyModelImg2ImgPipeline",
        rounds_down=True,
        guidance=8.5,
        own_sampler="lcm",
    ),
    "Lumina": WholeKind(guidance=4.0),
    "Lumina2": WholeKind(_TRANSFORMER, guidance=4.0),
    # In one step it expects what only its distilled sibling's scheduler answers.
    "PixArtAlpha": WholeKind(guidance=4.5, least_steps=2),
    "PixArtSigma": WholeKind(guidance=4.5),
    "QwenImage": WholeKind(
        _TRANSFORMER, "QwenImageImg2ImgPipeline", "QwenImageInpaintPipeline", guidance=4.0, true_guidance=True
    ),
    "Sana": WholeKind(_TRANSFORMER, guidance=4.5),
}
#: By the name in `model_index.json`.
WHOLE: Mapping[str, WholeKind] = {f"{name}Pipeline": kind for name, kind in _BY_NAME.items()}


def check_whole(folder: Path) -> None:
    """Whether a folder of such a pipeline can be loaded here, as far as its files say.

    Raises:
        ModelUnloadable: with the reason.
    """
    if not any(folder.glob("*/*.safetensors")):
        raise ModelUnloadable(f"{folder.name} has no safetensors weights.")
