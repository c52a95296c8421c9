"""Text to image pipelines of diffusers that are rendered whole, and what each of them can do. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass

from visionsuit.engine.base import Ability


@dataclass(frozen=True, slots=True)
class WholeKind:
    """
    Attributes:
        loras: components whose layers LoRAs change; none where diffusers has no loader for them.
        from_picture, inpainting: diffusers' classes over the same components that begin with a picture, and that
            repaint a part of one.
        rounds_down: how these come from a strength to a number of steps; others round up.
    """

    loras: tuple[str, ...] = ()
    from_picture: str | None = None
    inpainting: str | None = None
    rounds_down: bool = False

    @property
    def abilities(self) -> tuple[Ability, ...]:
        has = {
            Ability.LORAS: bool(self.loras),
            Ability.PICTURES: self.from_picture is not None,
            Ability.MASKS: self.inpainting is not None,
        }
        return tuple(ability for ability in Ability if has.get(ability, False))


_TRANSFORMER = ("transformer",)
_WITH_TEXT = ("transformer", "text_encoder")
_BY_NAME = {
    "AuraFlow": WholeKind(_TRANSFORMER),
    # Its class for inpainting asks for a setting that no Chroma has.
    "Chroma": WholeKind(_WITH_TEXT, "ChromaImg2ImgPipeline"),
    "CogView3Plus": WholeKind(),
    "CogView4": WholeKind(_TRANSFORMER),
    "Flux": WholeKind((*_WITH_TEXT, "text_encoder_2"), "FluxImg2ImgPipeline", "FluxInpaintPipeline"),
    "HunyuanDiT": WholeKind(),
    "Kandinsky3": WholeKind(("unet",), "Kandinsky3Img2ImgPipeline", rounds_down=True),
    "LatentConsistencyModel": WholeKind(
        ("unet", "text_encoder"), "LatentConsistencyModelImg2ImgPipeline", rounds_down=True
    ),
    "Lumina": WholeKind(),
    "Lumina2": WholeKind(_TRANSFORMER),
    "PixArtAlpha": WholeKind(),
    "PixArtSigma": WholeKind(),
    "QwenImage": WholeKind(_TRANSFORMER, "QwenImageImg2ImgPipeline", "QwenImageInpaintPipeline"),
    "Sana": WholeKind(_TRANSFORMER),
    "StableCascadeCombined": WholeKind(),
    "WuerstchenCombined": WholeKind(),
}
#: By the name in `model_index.json`.
WHOLE: Mapping[str, WholeKind] = {f"{name}Pipeline": kind for name, kind in _BY_NAME.items()}
