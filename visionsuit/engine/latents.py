"""What a picture begins with: noise of its own, and the latents of a picture to start from with its mask.

Every random number comes in the order in which diffusers' img2img and inpainting pipelines draw theirs, so the same
seed gives the same picture.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from visionsuit.engine.base import InitPicture, RenderRequest
from visionsuit.engine.base_models import LoadedModel

Shape = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Encoded:
    """What the VAE believes of a picture: `mean` and `std`, [1, C, h, w] fp32 on the CPU, scaled as latents are."""

    mean: torch.Tensor
    std: torch.Tensor

    def draw(self, generator: torch.Generator) -> torch.Tensor:
        """One latent of many that the picture may have."""
        noise = torch.randn(self.mean.shape, generator=generator, dtype=torch.float32)
        return self.mean + self.std * noise


@dataclass(frozen=True, slots=True)
class Unmasked:
    """What a row keeps of the picture it began with: `mask`, [1, 1, h, w], is 1 where it does not."""

    picture: torch.Tensor
    noise: torch.Tensor
    mask: torch.Tensor

    def put_into(self, latent: torch.Tensor, scheduler: Any, timestep: torch.Tensor) -> torch.Tensor:
        """`latent` with the kept part as noisy as the next call expects it. `timestep`: [1], or [0] after the last."""
        kept = scheduler.add_noise(self.picture, self.noise, timestep) if len(timestep) else self.picture
        return (1 - self.mask) * kept + self.mask * latent


@dataclass(frozen=True, slots=True)
class Start:
    """What a picture of a request begins with, encoded once for all that begin with the same.

    Attributes:
        picture: None where the UNet paints from nothing.
        mask: [1, 1, h, w] fp32 of zeros and ones on the CPU; 1 repaints.
        masked: the picture with a hole where it is repainted, for a UNet made for inpainting, which is told it beside
            the latent. Others are not: the mask is heeded between their calls.
    """

    picture: Encoded | None
    mask: torch.Tensor | None
    masked: Encoded | None


@dataclass(frozen=True, slots=True)
class First:
    """A row before its first call.

    Attributes:
        latent: [1, C, h, w] fp32.
        extra: [1, 1 + C, h, w] fp32, what a UNet made for inpainting is told beside the latent.
    """

    latent: torch.Tensor
    extra: torch.Tensor | None
    unmasked: Unmasked | None


def first_latent(
    request: RenderRequest,
    number: int,
    shape: Shape,
    start: Start | None,
    scheduler: Any,
    timesteps: torch.Tensor,
    generator: torch.Generator,
    device: torch.device,
) -> First:
    """Draw what picture `number` begins with, in its scheduler's scale; `timesteps` are those it will have."""
    init, extra, picture = request.init, None, None
    from_noise = init is None or (start is not None and start.mask is not None and init.strength == 1)
    if start is not None and start.picture is not None and not (start.masked is not None and from_noise):
        picture = start.picture.draw(generator)
    noise = torch.randn(shape, generator=generator, dtype=torch.float32)
    if request.variation is not None:
        noise = mixed_noise(noise, request.variation.seeds[number], request.variation.strength)
    if start is not None and start.masked is not None and start.mask is not None:
        extra = torch.cat([start.mask, start.masked.draw(generator)], dim=1).to(device)
    elif start is not None and start.mask is not None:
        # Nobody is told, but the generator's next numbers depend on it.
        torch.randn(shape, generator=generator, dtype=torch.float32)
    if from_noise or picture is None:
        latent = noise * scheduler.init_noise_sigma
    else:
        latent = scheduler.add_noise(picture, noise, timesteps[:1])
    unmasked = None
    if start is not None and start.mask is not None and extra is None and picture is not None:
        unmasked = Unmasked(picture.to(device), noise.to(device), start.mask.to(device))
    return First(latent.to(device), extra, unmasked)


def latent_shape(model: LoadedModel, width: int, height: int) -> Shape:
    return 1, int(model.vae.config.latent_channels), height // model.vae_factor, width // model.vae_factor


def mixed_noise(noise: torch.Tensor, seed: int, strength: float) -> torch.Tensor:
    """`noise` turned by `strength` (0..1) of the angle towards the noise of another seed, so that its length is kept.
    0 gives the very same numbers back."""
    if strength == 0:
        return noise
    other = torch.randn(noise.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    if strength == 1:
        return other
    cosine = (F.normalize(noise.flatten(), dim=0) * F.normalize(other.flatten(), dim=0)).sum().clamp(-1, 1)
    angle = torch.acos(cosine)
    if cosine.abs() > 0.9995:
        return (1 - strength) * noise + strength * other
    own, others = torch.sin((1 - strength) * angle), torch.sin(strength * angle)
    return (own * noise + others * other) / torch.sin(angle)


def begin(model: LoadedModel, request: RenderRequest, *, tiled: bool = False) -> list[Start | None]:
    """Encode what each picture of `request` begins with; None where that is noise alone. `tiled` takes less memory."""
    init, count = request.init, len(request.seeds)
    if init is None or init.pixels.ndim == 3:
        return [_begin(model, request, 0, tiled=tiled)] * count
    return [_begin(model, request, number, tiled=tiled) for number in range(count)]


def _begin(model: LoadedModel, request: RenderRequest, number: int, *, tiled: bool) -> Start | None:
    channels = int(model.vae.config.latent_channels)
    tells = model.unet.config.in_channels == 2 * channels + 1
    init = request.init
    if init is None and not tells:
        return None
    shape = latent_shape(model, request.width, request.height)
    (model.vae.enable_tiling if tiled else model.vae.disable_tiling)()
    if init is None:
        grey = torch.zeros(1, 3, request.height, request.width)
        return Start(None, torch.ones(1, 1, *shape[2:]), _encode(model, grey))
    pixels = torch.tensor(init.picture(number)).permute(2, 0, 1)[None].float() / 127.5 - 1
    picture = _encode(model, pixels)
    if init.mask is None and not tells:
        return Start(picture, None, None)
    full, small = _masks(init, shape)
    return Start(picture, small, _encode(model, pixels * (full < 0.5)) if tells else None)


def _masks(init: InitPicture, shape: Shape) -> tuple[torch.Tensor, torch.Tensor]:
    """The mask as zeros and ones, at the picture's size and at the latents'."""
    soft = init.soft_mask()
    if soft is None:
        return torch.ones(1, 1, *init.pixels.shape[-3:-1]), torch.ones(1, 1, *shape[2:])
    full = (torch.from_numpy(soft)[None, None] >= 0.5).float()
    small = F.interpolate(full, size=shape[2:])
    if not small.any():
        # What is thinner than a latent's pixel would be lost.
        small = F.adaptive_max_pool2d(full, shape[2:])
    return full, small


def _encode(model: LoadedModel, pixels: torch.Tensor) -> Encoded:
    """[1, 3, height, width] in -1..1."""
    vae, config = model.vae, model.vae.config
    with model.pictures.visit():
        belief = vae.encode(pixels.to(model.device, vae.dtype), return_dict=False)[0]
    latent, std = belief.mean.float().cpu(), belief.std.float().cpu()
    scale: Any = config.scaling_factor
    mean_of, std_of = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean_of is not None and std_of is not None:
        latent = latent - torch.tensor(mean_of).view(1, -1, 1, 1)
        scale = scale / torch.tensor(std_of).view(1, -1, 1, 1)
    else:
        latent = latent - (getattr(config, "shift_factor", None) or 0.0)
    return Encoded(latent * scale, std * scale)
