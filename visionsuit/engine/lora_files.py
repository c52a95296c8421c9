"""LoRA files -> pairs of matrices per module of the base model, whatever trainer wrote them."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from visionsuit.engine.base import IncompatibleLora, LoraRef, LoraUnloadable
from visionsuit.engine.change_shapes import PRODUCTS, factors, magnitude_shape
from visionsuit.engine.changes import Change, Dora, Pair, Product, Rotation, rotation
from visionsuit.engine.compat import BaseShapes, check_lora
from visionsuit.engine.header import BadHeader, metadata_of
from visionsuit.engine.lora_names import Component, LoraModule, Part, Shape, Spelling
from visionsuit.engine.tensor_file import TensorFile

_T = TypeVar("_T")

#: module name -> (down [r, in(, kh, kw)], up [out, r(, 1, 1)]), fp32 on the CPU, alpha / rank folded into up. Whether
#: the values are finite is left to whoever stacks them: layer by layer the question takes as long as the reading.
Pairs = dict[str, tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, slots=True)
class LoraFile:
    """What a file does to each component, by module name; `changes` are what no pair of matrices can say."""

    pairs: dict[Component, Pairs] = field(default_factory=dict)
    changes: dict[Component, dict[str, Change]] = field(default_factory=dict)
    #: [out], added to a layer's bias.
    biases: dict[Component, dict[str, torch.Tensor]] = field(default_factory=dict)


def read_lora(lora: LoraRef, base: BaseShapes) -> LoraFile:
    """Read and normalise a LoRA file for `base`.

    Raises:
        LoraUnloadable: the file is broken, not the one that its hash names, or made for another model.
    """
    return read_checked(lora, lambda file, label: read_file(file, base, label))


def read_checked(lora: LoraRef, parse: Callable[[TensorFile, str], _T]) -> _T:
    """What `parse` makes of the file and its label.

    Raises:
        LoraUnloadable: as of `read_lora`.
    """
    label = lora.name or lora.path.name
    try:
        file = TensorFile(lora.path)
        if file.sha256 != lora.sha256.lower():
            # The hash is the key of every cache: a file under the wrong one would reach other people's pictures.
            raise LoraUnloadable(f"{label} is not the file that its checksum names; upload it again.")
        return parse(file, label)
    except IncompatibleLora as error:
        raise LoraUnloadable(f"{label}: {error.message}") from error
    except (BadHeader, OSError) as error:
        raise LoraUnloadable(f"{label} cannot be read: {error}") from error


def read_file(file: TensorFile, base: BaseShapes, label: str) -> LoraFile:
    """
    Raises:
        IncompatibleLora: it was made for another model.
        LoraUnloadable: values that are no numbers; `label` says whose.
    """
    fit, configs = check_lora(file.tensors, base), adapter_configs(file.header, base)
    found = LoraFile()
    for module, name in fit.fitting:
        weight = base.index.shapes[module.component][name]
        if Part.BIAS in module.keys:
            bias = _finite(file[module.keys[Part.BIAS]], label, name).reshape(-1)
            found.biases.setdefault(module.component, {})[name] = bias
        if Part.OFT in module.keys:
            turned = _rotation(module, name, file, weight, label)
            found.changes.setdefault(module.component, {})[name] = turned
        matrices = read_matrices(module, name, file, configs[module.component], label)
        if matrices is None:
            continue
        if Part.DORA in module.keys:
            found.changes.setdefault(module.component, {})[name] = _dora(module, name, matrices, file, weight, label)
        elif isinstance(matrices, Product):
            found.changes.setdefault(module.component, {})[name] = matrices
        else:
            found.pairs.setdefault(module.component, {})[name] = matrices.widened(weight)
    return found


@dataclass(frozen=True, slots=True)
class RawPair:
    """`down` [r, in(, kh, kw)] and `up` [out, r(, 1, 1)] as the file holds them, a Tucker form multiplied out; the
    change is `up` @ `down` * `scale`."""

    down: torch.Tensor
    up: torch.Tensor
    scale: float

    def widened(self, weight: Shape) -> tuple[torch.Tensor, torch.Tensor]:
        """(down, up) as in `Pairs`, for a weight of this shape."""
        rank = self.down.shape[0]
        down, up = self.down.to(torch.float32), self.up.to(torch.float32)
        if self.scale != 1.0:
            up = up * self.scale
        return down.reshape(rank, *weight[1:]), up.reshape(weight[0], rank, *(1 for _ in weight[2:]))


def read_matrices(
    module: LoraModule, name: str, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any], label: str
) -> RawPair | Product | None:
    """What a module's matrices say; None where it has none. Of its DoRA, OFT and bias nothing.

    Args:
        name: of the base model's module.
        config: of its component, from `adapter_configs`.

    Raises:
        LoraUnloadable: `label` says whose.
    """
    product = next((part for part in PRODUCTS if part in module.keys), None)
    if product is not None:
        return _product(module, product, name, tensors, label)
    return _pair(module, name, tensors, config, label) if Part.DOWN in module.keys else None


def _pair(
    module: LoraModule, name: str, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any], label: str
) -> RawPair:
    down, up = tensors[module.keys[Part.DOWN]], tensors[module.keys[Part.UP]]
    rank = down.shape[0]
    if Part.MID in module.keys:
        # Tucker form: up [o, r] x mid [r, q, kh, kw] x down [q, i]; middle and down are one convolution.
        mid = tensors[module.keys[Part.MID]].to(torch.float32)
        down = torch.einsum("rqhw,qi->rihw", mid, down.to(torch.float32).reshape(rank, -1))
        rank = down.shape[0]
    alpha = tensors[module.keys[Part.ALPHA]] if Part.ALPHA in module.keys else None
    if alpha is not None and alpha.numel() != 1:
        raise LoraUnloadable(f"{label} has an alpha that is no single number at {name}.")
    return RawPair(down, up, float(alpha) / rank if alpha is not None else _config_scale(module, name, rank, config))


def _product(
    module: LoraModule, part: Part, name: str, tensors: Mapping[str, torch.Tensor], label: str
) -> Product | None:
    # Copies, since what is kept must not keep the whole file.
    own = {short: tensors[key].to(torch.float32, copy=True) for short, key in factors(module, part, tensors).items()}
    if not own:
        return None
    if not all(bool(factor.isfinite().all()) for factor in own.values()):
        raise _no_numbers(label, name)
    # The rank of whatever is factored; a LoKr of two whole matrices has none, and no scale.
    ranks = [own[short].shape[0] for short in ("w1_b", "w2_b") if short in own]
    alpha = tensors[module.keys[Part.ALPHA]] if Part.ALPHA in module.keys else None
    scale = float(alpha) / ranks[-1] if alpha is not None and alpha.numel() == 1 and ranks else 1.0
    if not math.isfinite(scale):
        raise _no_numbers(label, name)
    return Product(part, own, scale)


def _dora(
    module: LoraModule,
    name: str,
    matrices: RawPair | Product,
    tensors: Mapping[str, torch.Tensor],
    weight: Shape,
    label: str,
) -> Dora:
    key = module.keys[Part.DORA]
    magnitude = _finite(tensors[key], label, name)
    shape = magnitude_shape(key, tuple(magnitude.shape), weight)
    if shape is None:
        raise LoraUnloadable(f"{label} has magnitudes of shape {list(magnitude.shape)} at {name}, which fit no side.")
    if isinstance(matrices, Product):
        return Dora(matrices, magnitude.view(shape))
    down, up = (_finite(matrix.flatten(1), label, name) for matrix in matrices.widened(weight))
    return Dora(Pair(down, up), magnitude.view(shape))


def _rotation(
    module: LoraModule, name: str, tensors: Mapping[str, torch.Tensor], weight: Shape, label: str
) -> Rotation:
    blocks = _finite(tensors[module.keys[Part.OFT]], label, name)
    rescale = None
    if Part.RESCALE in module.keys:
        rescale = _finite(tensors[module.keys[Part.RESCALE]], label, name)
    alpha = tensors[module.keys[Part.ALPHA]] if Part.ALPHA in module.keys else None
    # An OFT's alpha bounds how far it turns, per output.
    constraint = float(alpha) * weight[0] if alpha is not None and alpha.numel() == 1 else 0.0
    return rotation(blocks, rescale, constraint)


def _finite(tensor: torch.Tensor, label: str, name: str) -> torch.Tensor:
    """A copy in fp32, since what is kept must not keep the whole file."""
    copy = tensor.to(torch.float32, copy=True)
    if not bool(copy.isfinite().all()):
        raise _no_numbers(label, name)
    return copy


def _no_numbers(label: str, name: str) -> LoraUnloadable:
    return LoraUnloadable(f"{label} holds values that are no numbers (NaN or infinity) at {name}.")


def _config_scale(module: LoraModule, name: str, rank: int, config: Mapping[str, Any]) -> float:
    """alpha / rank as PEFT's own metadata says; without any, alpha is the rank."""
    if module.spelling is Spelling.KOHYA or not config:
        return 1.0
    alpha = config.get("lora_alpha")
    patterns = config.get("alpha_pattern")
    for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
        stem = pattern.removeprefix("^").removeprefix("text_model.")
        if name == stem or name.endswith(f".{stem}"):
            alpha = value
            break
    if not isinstance(alpha, int | float) or isinstance(alpha, bool):
        return 1.0
    return alpha / (math.sqrt(rank) if config.get("use_rslora") is True else rank)


def adapter_configs(header: Mapping[str, Any], base: BaseShapes) -> dict[Component, Mapping[str, Any]]:
    """What PEFT wrote into a file's header about each component: alphas and the like."""
    config = _adapter_config(metadata_of(header))
    return {component: _config_of(config, component) for component in base.index.shapes}


def _config_of(config: Mapping[str, Any], component: Component) -> Mapping[str, Any]:
    prefix = f"{component}."
    return {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)} or config


def _adapter_config(metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        config = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except (ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def module_shapes(module: torch.nn.Module) -> tuple[dict[str, Shape], dict[str, str]]:
    """Weight shapes of the Linear and Conv2d layers of a bare module, and the names' spelling in the module itself.

    Names are without `text_model.`, which newer transformers dropped and files still carry.
    """
    shapes: dict[str, Shape] = {}
    real: dict[str, str] = {}
    for name, layer in module.named_modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            plain = name.removeprefix("text_model.")
            shapes[plain], real[plain] = tuple(layer.weight.shape), name
    return shapes, real
