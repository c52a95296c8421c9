"""Renders pictures. The only place that imports torch, diffusers and peft, and only when an engine starts: begin
reading at base.py, which needs none of them.

From a notebook:

    from pathlib import Path
    from visionsuit.engine.base import RenderRequest
    from visionsuit.engine.catalog import read_base_model
    from visionsuit.engine.diffusers_engine import DiffusersEngine

    model = read_base_model(Path("models_cache/demo"))
    engine = DiffusersEngine()
    engine.start()
    [picture] = engine.render(
        RenderRequest(
            base_model=model.ref, prompt="red heart", negative_prompt="", width=64, height=64,
            steps=12, guidance=4.0, seeds=(7,), sampler="dpmpp_2m", schedule="trailing",
        ),
        on_progress=lambda progress: None, is_cancelled=lambda: False,
    )
    picture.pixels  # uint8 [64, 64, 3]

Begin with a picture by `init=InitPicture(pixels, strength=0.6)`, repaint a part of it with `mask=`, and mix another
seed's noise in by `variation=Variation(seeds=(9,), strength=0.1)`.
"""
