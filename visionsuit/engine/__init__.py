"""Renders pictures. The only place that imports torch, diffusers and peft, and only when an engine starts: begin
reading at base.py, which needs none of them.

Usable without the rest of the app; `notebook.py` shows how:

    from visionsuit.engine import open_painter

    with open_painter("models_cache/demo") as paint:
        [picture] = paint("red heart", seed=7, loras={"models_cache/demo-loras/night/night.safetensors": 0.8})
"""

from visionsuit.engine.base import EngineError, InitPicture, LoraRef, Picture, Progress, RenderRequest
from visionsuit.engine.catalog import read_base_model
from visionsuit.engine.notebook import Painter, open_painter

__all__ = [
    "EngineError",
    "InitPicture",
    "LoraRef",
    "Painter",
    "Picture",
    "Progress",
    "RenderRequest",
    "open_painter",
    "read_base_model",
]
