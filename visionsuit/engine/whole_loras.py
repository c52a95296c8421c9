"""LoRAs of a pipeline that is rendered whole. What diffusers' own loader takes of them goes through that: a few stay
loaded, and before each picture exactly the request's mix is switched on. The rest is added to weights for a picture."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from visionsuit.engine.base import LoraRef, LoraUnloadable
from visionsuit.engine.devices import Device, is_out_of_memory
from visionsuit.engine.lora_names import Component
from visionsuit.engine.lora_packs import MixKey, mix_key, mix_of
from visionsuit.engine.residence import PipelineResidence, Weights
from visionsuit.engine.whole_changes import ChangedWeights
from visionsuit.engine.whole_packs import AdapterPack, AdapterPacks

DENOISERS = frozenset({Component.UNET, Component.TRANSFORMER})
#: Adapters that stay loaded, beside those of the mix that is rendered now.
MOST_KEPT = 8


@dataclass(frozen=True, slots=True)
class _Adapter:
    """A loaded file; `name` is what the pipeline calls it."""

    name: str
    weights: Weights


class WholeLoras:
    """Used by the device thread alone, but for `packs`.

    Attributes:
        bytes: beside those of the pipeline's residence, where loaded adapters count.
    """

    bytes = 0

    def __init__(
        self,
        label: str,
        pipeline: Any,
        components: Sequence[str],
        residence: PipelineResidence,
        packs: AdapterPacks,
        device: Device,
    ) -> None:
        self._label = label
        self._pipeline = pipeline
        self._components = [Component(name) for name in components]
        self._residence = residence
        self._device = device
        self._adapters: OrderedDict[str, _Adapter] = OrderedDict()
        self._numbers = count()
        modules = {component: getattr(pipeline, component) for component in self._components}
        self._changed = ChangedWeights(label, modules, packs.base, device)
        self.packs = packs

    def __len__(self) -> int:
        return len(self._adapters)

    @contextmanager
    def under(self, loras: Sequence[LoraRef], packs: Mapping[str, AdapterPack]) -> Iterator[None]:
        """The pipeline has this mix, and nothing of any other.

        Raises:
            LoraUnloadable: with the file's name; the pipeline is as good as before.
        """
        keys = {component: mix_key(loras, text=component not in DENOISERS) for component in self._components}
        self._switch(loras, packs, keys)
        with self._changed.under({component: mix_of(packs, key, component) for component, key in keys.items()}):
            yield

    def _switch(
        self, loras: Sequence[LoraRef], packs: Mapping[str, AdapterPack], keys: Mapping[Component, MixKey]
    ) -> None:
        """From now on, but for what is no adapter."""
        weights = {component: dict(key) for component, key in keys.items()}
        mix: dict[str, dict[str, float]] = {}
        for lora in loras:
            sha256 = lora.sha256.lower()
            # What is said of the text encoder means nothing to a file that leaves it alone.
            acting = {
                component: weight for component in packs[sha256].adapted if (weight := weights[component].get(sha256))
            }
            if acting:
                mix[sha256] = {component: acting.get(component, 0.0) for component in packs[sha256].adapted}
        names = {lora.sha256.lower(): lora.name or lora.path.name for lora in loras}
        for sha256 in mix:
            self._load(sha256, packs[sha256], names[sha256])
        self._drop_old(mix)
        if mix:
            self._pipeline.enable_lora()
            self._pipeline.set_adapters([self._adapters[sha256].name for sha256 in mix], list(mix.values()))
        elif self._adapters:
            self._pipeline.disable_lora()

    def free_memory(self) -> None:
        """Whoever needs an adapter loads it again."""
        for sha256 in list(self._adapters):
            self._drop(sha256)

    def _load(self, sha256: str, pack: AdapterPack, label: str) -> None:
        if sha256 in self._adapters:
            self._adapters.move_to_end(sha256)
            return
        name = f"lora_{next(self._numbers)}"
        try:
            with self._residence.unhooked():
                # Copies, since what it loads belongs to the pipeline, and the pack to others too.
                self._pipeline.load_lora_weights(
                    {key: tensor.clone() for key, tensor in pack.tensors.items()}, adapter_name=name
                )
                layers = self._layers(name)
                if not layers:
                    raise LoraUnloadable(f"{label} changes nothing in {self._label}: none of its layers is there.")
                weights = Weights(layers, self._device)
                self._residence.add(weights)
        except Exception as error:  # whatever a file makes the libraries say, the person needs a sentence
            self._unload(name)
            if isinstance(error, LoraUnloadable) or is_out_of_memory(error):
                raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise LoraUnloadable(f"{label} cannot be loaded into {self._label}: {reason[:300]}") from error
        self._adapters[sha256] = _Adapter(name, weights)

    def _drop_old(self, mix: Mapping[str, Any]) -> None:
        old = [sha256 for sha256 in self._adapters if sha256 not in mix]
        for sha256 in old[: max(0, len(self._adapters) - max(MOST_KEPT, len(mix)))]:
            self._drop(sha256)

    def _drop(self, sha256: str) -> None:
        adapter = self._adapters.pop(sha256)
        self._residence.remove(adapter.weights)
        self._unload(adapter.name)

    def _unload(self, name: str) -> None:
        self._pipeline.delete_adapters([name])
        if not self._adapters:
            # The layers are the pipeline's own again.
            self._pipeline.unload_lora_weights()

    def _layers(self, name: str) -> list[torch.nn.Module]:
        """What the adapter put into the pipeline."""
        return [
            part[name]
            for component in self._components
            for layer in getattr(self._pipeline, component).modules()
            if isinstance(layer, BaseTunerLayer)
            for part in (getattr(layer, kind) for kind in layer.adapter_layer_names)
            if isinstance(part, torch.nn.ModuleDict) and name in part
        ]
