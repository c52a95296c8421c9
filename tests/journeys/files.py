"""LoRA files as trainers write them, for the base model that comes with the program. No torch needed."""

import json

import numpy as np
from safetensors.numpy import save

from tests.conftest import MODELS_DIR
from visionsuit.engine.compat import read_base_shapes
from visionsuit.engine.lora_names import Component


def kohya_lora(seed: int, *, rank: int = 2, widen: int = 0) -> bytes:
    """A LoRA on the UNet's cross attention, strong enough to be seen; `widen` makes it one for another model."""
    shapes = read_base_shapes(MODELS_DIR / "demo").index.shapes[Component.UNET]
    random = np.random.default_rng(seed)
    tensors = {}
    for name in sorted(shapes):
        if not name.endswith(("attn2.to_k", "attn2.to_v")):
            continue
        outputs, inputs = shapes[name][:2]
        stem = "lora_unet_" + name.replace(".", "_")
        tensors[f"{stem}.lora_down.weight"] = random.normal(0, 0.2, (rank, inputs + widen)).astype(np.float16)
        tensors[f"{stem}.lora_up.weight"] = random.normal(0, 0.2, (outputs, rank)).astype(np.float16)
        tensors[f"{stem}.alpha"] = np.float16(rank)
    about = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(rank),
        "ss_base_model_version": "sd_v1",
        "ss_tag_frequency": json.dumps({"set": {"ink": 12, "paper": 5}}),
    }
    return save({name: np.asarray(tensor) for name, tensor in tensors.items()}, about)
