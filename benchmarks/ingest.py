"""B10: a picture on its way in (verify, clean, two thumbnails, recipe, files, rows, index) against pyvips making one
512-pixel WebP thumbnail and nothing else; and a render of our own, whose pixels are in memory already.
"""

import io
from collections.abc import Iterator

import numpy as np
import pyvips
from PIL import Image

from benchmarks.harness import Figure, compare
from benchmarks.site import open_site
from visionsuit.media.previews import preview_array
from visionsuit.storage.base import Bucket
from visionsuit.uploads import service as uploads
from visionsuit.uploads.drafts import Announced, open_draft
from visionsuit.uploads.tables import DraftKind, FileRole

SIDE = 1024
PER_ROUND = 12
ROUNDS = 5


def photograph(seed: int) -> Image.Image:
    """Smooth colours with fine noise: compresses as pictures do."""
    chance = np.random.default_rng(seed)
    small = chance.integers(0, 255, (9, 9, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.int16)
    noisy = smooth + chance.integers(-6, 7, smooth.shape, dtype=np.int16)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def encoded(seed: int, kind: str) -> bytes:
    out = io.BytesIO()
    photograph(seed).save(out, kind, **({"compress_level": 6} if kind == "PNG" else {"quality": 92}))
    return out.getvalue()


def thumbnail(data: bytes) -> bytes:
    picture = pyvips.Image.thumbnail_buffer(data, 512)
    return bytes(picture.webpsave_buffer(Q=80, effort=0))


def run() -> list[Figure]:
    pyvips.concurrency_set(1)
    figures = []
    for kind, target in (("PNG", 0.85), ("JPEG", 1.0)):
        with open_site() as (runtime, actor):
            # Every upload is a picture of its own, or it is refused as a duplicate; one round more to warm up.
            batches = [[encoded(turn * PER_ROUND + i, kind) for i in range(PER_ROUND)] for turn in range(ROUNDS + 1)]
            serial = iter(batches)

            def ingest(serial: Iterator[list[bytes]] = serial, kind: str = kind) -> None:
                files = next(serial)
                with runtime.open_ctx(actor) as ctx:
                    announced = [Announced(f"{i}.{kind.lower()}", FileRole.IMAGE, None) for i in range(len(files))]
                    draft = open_draft(ctx, DraftKind.IMAGES, announced).public_id
                for i, data in enumerate(files):
                    uploads.receive_draft_file(runtime, actor, draft, i, [data])
                uploads.publish_draft(runtime, actor, draft, {"visibility": "public"}, lambda *_: None, lambda *_: None)

            def reference(files: list[bytes] = batches[0]) -> None:
                for data in files:
                    thumbnail(data)

            figure = compare(
                "B10",
                f"ingest of {kind} pictures / pyvips thumbnail alone, speed",
                ingest,
                reference,
                target=target,
                rounds=ROUNDS,
                faster_is_more=True,
                unit=f"s/{PER_ROUND}",
                correct=lambda: sum(1 for _ in runtime.storage.list_objects(Bucket.IMAGES)) == (ROUNDS + 1) * PER_ROUND,
            )
            figures.append(figure)
    pixels = [np.asarray(photograph(seed)) for seed in range(PER_ROUND)]
    files = [encoded(seed, "PNG") for seed in range(PER_ROUND)]
    figures.append(
        compare(
            "B10",
            "previews of own renders, from memory / pyvips thumbnail of their PNG, speed",
            lambda: [preview_array(array) for array in pixels],
            lambda: [thumbnail(data) for data in files],
            target=3.0,
            rounds=ROUNDS,
            faster_is_more=True,
            unit=f"s/{PER_ROUND}",
        )
    )
    return figures
