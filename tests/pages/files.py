"""Small real files to upload."""

import io
import json
import random
import struct

from PIL import Image, PngImagePlugin


def png(seed: int, size: tuple[int, int] = (96, 96), parameters: str | None = None) -> bytes:
    """A picture that no other seed makes."""
    rng = random.Random(seed)
    picture = Image.new("RGB", (8, 8))
    picture.putdata([tuple(rng.randrange(256) for _ in range(3)) for _ in range(64)])
    info = PngImagePlugin.PngInfo()
    if parameters:
        info.add_text("parameters", parameters)
    out = io.BytesIO()
    picture.resize(size).save(out, "PNG", pnginfo=info)
    return out.getvalue()


def lora(seed: int, rank: int = 4) -> bytes:
    """A small kohya LoRA for SD 1.x, valid to the last byte."""
    rng = random.Random(seed)
    header: dict[str, object] = {"__metadata__": {"ss_network_dim": str(rank), "ss_base_model_version": "sd_v1-5"}}
    offset = 0
    for block in range(2):
        name = f"lora_unet_down_blocks_{block}_attentions_0_transformer_blocks_0_attn1_to_q"
        for part, shape in (("lora_down", [rank, 320]), ("lora_up", [320, rank])):
            end = offset + 2 * shape[0] * shape[1]
            header[f"{name}.{part}.weight"] = {"dtype": "F16", "shape": shape, "data_offsets": [offset, end]}
            offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + rng.randbytes(offset)
