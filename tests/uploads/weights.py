"""Files for upload tests: LoRAs of any size and pictures, made here."""

import io
import json
import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image
from safetensors.numpy import save


def make_lora(seed: int = 0, *, rank: int = 4, width: int = 768) -> bytes:
    """A small kohya LoRA for one cross-attention layer of SD 1.5, with training metadata."""
    rng = np.random.default_rng(seed)
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {
        f"{name}.lora_down.weight": rng.normal(size=(rank, width)).astype(np.float16),
        f"{name}.lora_up.weight": rng.normal(size=(320, rank)).astype(np.float16),
        f"{name}.alpha": np.float16(rank),
    }
    tags = json.dumps({"10_ink": {"ink style": 30, "1girl": 12}})
    return save({key: np.asarray(value) for key, value in tensors.items()}, {"ss_tag_frequency": tags})


def stream_weights(size: int, seed: int = 0) -> tuple[int, Iterator[bytes]]:
    """About `size` bytes of a safetensors file that is never whole in memory: its length and its blocks."""
    block = np.random.default_rng(seed).bytes(1024 * 1024)
    count = size // len(block)
    header = json.dumps({"a": {"dtype": "U8", "shape": [count * len(block)], "data_offsets": [0, count * len(block)]}})
    head = struct.pack("<Q", len(header)) + header.encode()

    def blocks() -> Iterator[bytes]:
        yield head
        for _ in range(count):
            yield block

    return len(head) + count * len(block), blocks()


def make_picture(seed: int = 0, kind: str = "PNG", size: tuple[int, int] = (400, 300), **options: object) -> bytes:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8))
    out = io.BytesIO()
    coarse.resize(size, Image.Resampling.BICUBIC).save(out, kind, **options)
    return out.getvalue()
