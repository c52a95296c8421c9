"""The conflict meter: how the LoRAs of a mix get on with each other, from their files alone.

Sizes and products of two files never change, so they are calculated once and kept, in one thread of their own: however
many ask, the memory is that of one mix. Until they are there the answer says so and holds the pairs that are known;
after that a slider is answered from memory.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import structlog

from visionsuit.core.errors import NotFound, NotSignedIn
from visionsuit.engine.base import BaseModelRef, LoraUnloadable, ModelUnloadable
from visionsuit.engine.base_shapes import BaseShapes, read_base_shapes
from visionsuit.engine.conflicts import Change, Meeting, Products, Weights, meet
from visionsuit.generation.base_models import get_offered, ref_of
from visionsuit.generation.files import local_lora
from visionsuit.generation.mix import MIXABLE, NotALora, find_problem
from visionsuit.generation.order import LoraOrder, check_mix
from visionsuit.modelcards.queries import get_version
from visionsuit.runtime import Ctx, Runtime

log = structlog.get_logger()

#: How long an answer waits for what is being calculated.
PATIENCE_S = 1.5
#: Files and pairs remembered, each some 40 kB for SDXL; and tasks that may wait.
_KEPT_FILES, _KEPT_PAIRS, _MOST_WAITING = 512, 2048, 24


class MixedFile(NamedTuple):
    """A LoRA of the mix with its file in the storage."""

    model_id: str
    version_id: str
    title: str
    sha256: str
    object_id: str
    weights: Weights


@dataclass(frozen=True, slots=True)
class Conflicts:
    """`is_complete`: false while pairs are still being measured. `unmeasured`: numbers of LoRAs that cannot be;
    `partial`: of those that do more than is measured."""

    files: list[MixedFile]
    meetings: list[Meeting]
    is_complete: bool
    unmeasured: list[int]
    partial: list[int]


def find_files(ctx: Ctx, base_model_id: str | None, loras: Sequence[LoraOrder]) -> tuple[BaseModelRef, list[MixedFile]]:
    """What the mix consists of, as far as the actor may know. Quick; `Meter.answer` does the rest without `ctx`.

    Raises:
        NotSignedIn, UnknownBaseModel, NoBaseModel
        CardNotFound, VersionNotFound: also for a LoRA that the actor does not see.
        NotALora, BadOrder: with field `loras.<n>...`.
    """
    if ctx.actor.is_guest:
        raise NotSignedIn("Sign in to compare LoRAs.")
    check_mix(tuple(loras), ctx.settings.limits)
    base = get_offered(ctx, base_model_id)
    files = []
    for number, lora in enumerate(loras):
        card, version = get_version(ctx, lora.model_id, lora.version_id)
        if card.type not in MIXABLE:
            raise NotALora(
                f"“{card.title}” is a {card.type}; only LoRAs can be mixed in.", field=f"loras.{number}.model_id"
            )
        weights = Weights(lora.weight, lora.text_encoder_weight)
        files.append(
            MixedFile(card.public_id, version.public_id, card.title, version.sha256, version.object_id, weights)
        )
    return ref_of(ctx.runtime, base), files


#: Stands for what has not been measured.
_UNKNOWN = Change({})


class Meter:
    """Measured files and pairs of this process. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By base model, since it decides which layers a file's names mean.
        self._changes: OrderedDict[tuple[str, str], Change | None] = OrderedDict()
        self._products: OrderedDict[tuple[str, str, str], Products] = OrderedDict()
        self._running: dict[tuple[str, frozenset[str]], Future[None]] = {}
        self._pool: ThreadPoolExecutor | None = None

    def answer(
        self, runtime: Runtime, base: BaseModelRef, files: list[MixedFile], *, patience_s: float = PATIENCE_S
    ) -> Conflicts:
        """How the files meet on this base model; what is not known yet is begun, and waited for a moment."""
        missing = self._missing(base.key, files)
        if missing:
            task = self._begin(runtime, base, missing)
            if task is not None:
                wait([task], timeout=patience_s)
        with self._lock:
            changes = [self._look_up(base.key, file) for file in files]
            products: dict[tuple[int, int], Products] = {}
            for first, second in combinations(range(len(files)), 2):
                found = self._find_products(base.key, files[first], files[second])
                if found is not None:
                    products[first, second] = found
        known = [change if isinstance(change, Change) else Change({}) for change in changes]
        return Conflicts(
            files=files,
            meetings=meet([file.weights for file in files], known, products),
            is_complete=not self._missing(base.key, files),
            unmeasured=[number for number, change in enumerate(changes) if change is None],
            partial=[number for number, change in enumerate(known) if change.is_partial],
        )

    def close(self) -> None:
        """Drop what waits; what is calculated at the moment ends in its own time. May be used again."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    def _look_up(self, base_key: str, file: MixedFile) -> Change | None:
        key = (base_key, file.sha256)
        if key not in self._changes:
            return Change({})
        self._changes.move_to_end(key)
        return self._changes[key]

    def _find_products(self, base_key: str, one: MixedFile, other: MixedFile) -> Products | None:
        if one.sha256 == other.sha256:
            change = self._changes.get((base_key, one.sha256))
            return None if change is None else change.squares
        key = _pair(base_key, one, other)
        if key in self._products:
            self._products.move_to_end(key)
        return self._products.get(key)

    def _missing(self, base_key: str, files: Sequence[MixedFile]) -> list[MixedFile]:
        """Files of pairs that are not known, without those that cannot be measured."""
        with self._lock:
            wanted: dict[str, MixedFile] = {}
            for pair in combinations(files, 2):
                known = [self._changes.get((base_key, file.sha256), _UNKNOWN) for file in pair]
                if None in known or (_UNKNOWN not in known and self._find_products(base_key, *pair) is not None):
                    continue
                wanted |= {file.sha256: file for file in pair}
            return list(wanted.values())

    def _begin(self, runtime: Runtime, base: BaseModelRef, files: list[MixedFile]) -> Future[None] | None:
        key = (base.key, frozenset(file.sha256 for file in files))
        with self._lock:
            task = self._running.get(key)
            if task is not None or len(self._running) >= _MOST_WAITING:
                return task
            self._pool = self._pool or ThreadPoolExecutor(1, thread_name_prefix="conflict-meter")
            task = self._running[key] = self._pool.submit(self._measure, runtime, base, files)
        task.add_done_callback(lambda done: self._forget(key, done))
        return task

    def _forget(self, key: tuple[str, frozenset[str]], task: Future[None]) -> None:
        with self._lock:
            self._running.pop(key, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Nobody may be waiting for it any more: the next question tries again.
            log.warning("conflicts_not_measured", error=str(error))

    def _measure(self, runtime: Runtime, base: BaseModelRef, files: list[MixedFile]) -> None:
        # torch comes with it, and is not on the way to the first page.
        from visionsuit.engine.change_sizes import measure

        try:
            shapes = read_base_shapes(base.path)
        except ModelUnloadable:
            # No UNet whose layers have names here: nothing can be said of any LoRA.
            self._keep(base.key, dict.fromkeys((file.sha256 for file in files), None), {})
            return
        paths: list[Path] = []
        readable: list[MixedFile] = []
        for file in files:
            try:
                fits = (
                    find_problem(runtime.storage, file.object_id, base.path, base.key) is None  # type: ignore[arg-type]
                )
                path = local_lora(runtime, file.object_id, file.sha256) if fits else None
            except NotFound:
                path = None
            if path is None:
                self._keep(base.key, {file.sha256: None}, {})
            else:
                paths.append(path)
                readable.append(file)
        with self._lock:
            pairs = [
                (a, b)
                for a, b in combinations(range(len(readable)), 2)
                if _pair(base.key, readable[a], readable[b]) not in self._products
            ]
        try:
            measured = measure(paths, shapes, pairs=pairs)
        except LoraUnloadable as error:
            log.info("lora_not_measured", reason=error.message)
            broken = [file.sha256 for file, path in zip(readable, paths, strict=True) if not _is_whole(path, shapes)]
            self._keep(base.key, dict.fromkeys(broken, None), {})
            return
        self._keep(
            base.key,
            {file.sha256: change for file, change in zip(readable, measured.changes, strict=True)},
            {_pair(base.key, readable[a], readable[b]): measured.products[a, b] for a, b in pairs},
        )

    def _keep(
        self, base_key: str, changes: Mapping[str, Change | None], products: Mapping[tuple[str, str, str], Products]
    ) -> None:
        with self._lock:
            self._changes |= {(base_key, sha256): change for sha256, change in changes.items()}
            self._products |= products
            for kept, most in ((self._changes, _KEPT_FILES), (self._products, _KEPT_PAIRS)):
                while len(kept) > most:
                    kept.popitem(last=False)


#: Of the process: what is under a file's digest is the same for whoever asks.
METER = Meter()


def _pair(base_key: str, one: MixedFile, other: MixedFile) -> tuple[str, str, str]:
    first, second = sorted((one.sha256, other.sha256))
    return base_key, first, second


def _is_whole(path: Path, shapes: BaseShapes) -> bool:
    from visionsuit.engine.change_sizes import measure

    try:
        measure([path], shapes)
    except LoraUnloadable:
        return False
    return True
