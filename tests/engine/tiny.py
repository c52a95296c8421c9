"""Tiny real models and LoRAs: random weights in the true formats, a render in a fraction of a second.

    base = make_tiny_sd(tmp_path / "sd")
    sha256 = make_lora(tmp_path / "a.safetensors", base, rank=4, kind="kohya", text_encoder=True, seed=1)

Everything follows from the seeds, so two runs make the same bytes.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, EulerDiscreteScheduler, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

DEMO = Path(__file__).resolve().parents[2] / "models_cache" / "demo"
_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_TRANSFORMER = ("proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
_CONVOLUTIONS = ("conv1", "conv2")
_TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
_ENCODER = json.loads((DEMO / "text_encoder" / "config.json").read_text())
_VOCABULARY = {name: _ENCODER[name] for name in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")}
_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


def make_tiny_sd(folder: Path, *, prediction_type: str = "epsilon", seed: int = 0, inpainting: bool = False) -> Path:
    """A StableDiffusionPipeline folder of some 100,000 weights: 64 px pictures from 8x8 latents, context 32.
    `inpainting`: its UNet is told mask and masked picture."""
    torch.manual_seed(seed)
    _save_unet(
        folder,
        in_channels=9 if inpainting else 4,
        cross_attention_dim=32,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4,
    )
    save_text_encoder(folder, "", CLIPTextModel, 32)
    scheduler = DPMSolverMultistepScheduler(**_BETAS, prediction_type=prediction_type, steps_offset=1)
    _finish(folder, scheduler, 0.18215, "StableDiffusionPipeline", {"safety_checker": [None, None]})
    return folder


def make_tiny_sdxl(folder: Path, *, seed: int = 0) -> Path:
    """A StableDiffusionXLPipeline folder: two text encoders, pooled embedding, size conditioning, deep transformers."""
    return _make_sdxl(
        folder,
        seed,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        transformer_layers_per_block=(1, 2),
    )


def make_sdxl_topology(folder: Path, *, seed: int = 0) -> Path:
    """SDXL's blocks and its 722 adaptable linear layers at a tenth of the width, 23 million weights."""
    return _make_sdxl(
        folder,
        seed,
        attentive=False,  # through so many layers it would blow every rounding up to another picture
        block_out_channels=(32, 64, 128),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4, 8),
        transformer_layers_per_block=(1, 2, 10),
    )


def _make_sdxl(folder: Path, seed: int, **unet: Any) -> Path:
    torch.manual_seed(seed)
    _save_unet(
        folder,
        cross_attention_dim=32 + 48,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=48 + 6 * 8,
        **unet,
    )
    save_text_encoder(folder, "", CLIPTextModel, 32)
    save_text_encoder(folder, "_2", CLIPTextModelWithProjection, 48)
    _finish(folder, EulerDiscreteScheduler(**_BETAS), 0.13025, "StableDiffusionXLPipeline", {})
    return folder


def make_lora(
    path: Path,
    base_folder: Path,
    rank: int = 4,
    kind: Literal["kohya", "diffusers"] = "kohya",
    *,
    text_encoder: bool = False,
    conv: bool = False,
    transformer: bool = False,
    seed: int = 0,
    alpha: float | None = None,
    strength: float = 1.0,
) -> str:
    """Write a LoRA for the base model as a trainer would, none of its weights zero. Returns the file's SHA-256.

    Args:
        text_encoder: adapt the text encoders as well.
        conv: adapt the resnets' convolutions as well (what kohya calls LoCon).
        transformer: adapt all linear layers of the transformer blocks, as trainers do by default, not just attention.
        alpha: the rank if None.
        strength: scale of the change; 1 alters a random model's picture visibly.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    alpha = float(rank if alpha is None else alpha)
    tensors: dict[str, torch.Tensor] = {}
    for component, name, shape in _targets(base_folder, text_encoder, _layers(conv, transformer)):
        down = torch.randn(rank, *shape[1:], generator=generator) / (shape[1] ** 0.5)
        up = torch.randn(shape[0], rank, *(1 for _ in shape[2:]), generator=generator) * (strength / rank**0.5)
        if kind == "kohya":
            stem = _kohya_stem(component, name, base_folder)
            tensors[f"{stem}.lora_down.weight"], tensors[f"{stem}.lora_up.weight"] = down, up
            tensors[f"{stem}.alpha"] = torch.tensor(alpha)
        else:
            stem = f"{component}.{name}"
            tensors[f"{stem}.lora_A.weight"], tensors[f"{stem}.lora_B.weight"] = down, up
    halves = {name: tensor.to(torch.float16).contiguous() for name, tensor in tensors.items()}
    save_file(halves, path, metadata=_metadata(kind, base_folder, rank, alpha, path.stem, _layers(conv, transformer)))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _save_unet(folder: Path, *, attentive: bool = True, **options: object) -> None:
    sizes = {"block_out_channels": (32, 64), "layers_per_block": 1, "in_channels": 4, **options}
    unet = UNet2DConditionModel(sample_size=8, out_channels=4, norm_num_groups=8, **sizes)
    with torch.no_grad():
        # Fresh cross attention hardly listens to the prompt.
        for name, parameter in unet.named_parameters():
            if attentive and ".attn2." in name:
                parameter.mul_(4)
    unet.save_pretrained(folder / "unet")


def save_text_encoder(folder: Path, suffix: str, encoder_class: type, width: int) -> None:
    """Text encoder and tokenizer number `suffix` of a pipeline folder."""
    config = CLIPTextConfig(
        hidden_size=width, intermediate_size=2 * width, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=32, projection_dim=width, **_VOCABULARY,
    )  # fmt: skip
    encoder = encoder_class(config)
    with torch.no_grad():
        # Fresh embeddings are so small that all prompts look alike.
        for name, parameter in encoder.named_parameters():
            if "embedding" in name:
                parameter.normal_(0, 1)
    encoder.save_pretrained(folder / f"text_encoder{suffix}")
    shutil.copytree(DEMO / "tokenizer", folder / f"tokenizer{suffix}", dirs_exist_ok=True)


def _finish(folder: Path, scheduler: object, scaling_factor: float, class_name: str, extra: dict[str, object]) -> None:
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 16), layers_per_block=1, norm_num_groups=4, latent_channels=4, sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=scaling_factor,
    )  # fmt: skip
    vae.save_pretrained(folder / "vae")
    scheduler.save_pretrained(folder / "scheduler")  # type: ignore[attr-defined]
    index: dict[str, object] = {
        "_class_name": class_name,
        "_diffusers_version": "0.36.0",
        "scheduler": ["diffusers", type(scheduler).__name__],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        **extra,
    }
    if class_name == "StableDiffusionXLPipeline":
        index["text_encoder_2"] = ["transformers", "CLIPTextModelWithProjection"]
        index["tokenizer_2"] = ["transformers", "CLIPTokenizer"]
        index["force_zeros_for_empty_prompt"] = True
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))


def _layers(conv: bool, transformer: bool) -> tuple[str, ...]:
    return _ATTENTION + (_TRANSFORMER if transformer else ()) + (_CONVOLUTIONS if conv else ())


def _targets(
    base_folder: Path, text_encoder: bool, unet_layers: tuple[str, ...]
) -> list[tuple[str, str, tuple[int, ...]]]:
    """(component, module, shape of its weight) of what the LoRA adapts; text encoders with `text_model.` names."""
    found: list[tuple[str, str, tuple[int, ...]]] = []
    for component in ("unet", "text_encoder", "text_encoder_2"):
        if component != "unet" and not text_encoder:
            continue
        layers = _TEXT if component != "unet" else unet_layers
        for file in sorted((base_folder / component).glob("*.safetensors")):
            with safe_open(file, "pt") as weights:
                for key in sorted(weights.keys()):
                    name = key.removesuffix(".weight")
                    if name != key and name.endswith(tuple(f".{layer}" for layer in layers)):
                        shape = tuple(weights.get_slice(key).get_shape())
                        plain = name.removeprefix("text_model.")
                        found.append((component, plain if component == "unet" else f"text_model.{plain}", shape))
    return found


def _kohya_stem(component: str, name: str, base_folder: Path) -> str:
    double = (base_folder / "text_encoder_2").is_dir()
    prefix = {"unet": "lora_unet", "text_encoder": "lora_te1" if double else "lora_te", "text_encoder_2": "lora_te2"}
    return f"{prefix[component]}_{name.replace('.', '_')}"


def _metadata(
    kind: str, base_folder: Path, rank: int, alpha: float, name: str, layers: tuple[str, ...]
) -> dict[str, str]:
    if kind == "diffusers":
        full = {
            f"{part}.{key}": value
            for part in ("unet", "text_encoder", "text_encoder_2")
            for key, value in {
                "r": rank,
                "lora_alpha": alpha,
                "target_modules": list(_TEXT if part != "unet" else layers),
            }.items()
        }
        return {"format": "pt", "lora_adapter_metadata": json.dumps(full, sort_keys=True)}
    xl = (base_folder / "text_encoder_2").is_dir()
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(alpha),
        "ss_base_model_version": "sdxl_base_v1-0" if xl else "sd_v1",
        "ss_sd_model_name": f"{base_folder.name}.safetensors",
        "ss_output_name": name,
        "ss_num_train_images": "40",
        "ss_num_epochs": "10",
        "ss_resolution": "(64, 64)",
        "ss_tag_frequency": json.dumps({"10_subject": {"heart": 30, "red": 20, "smile": 5}}),
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora" if xl else "stable-diffusion-v1/lora",
        "modelspec.title": name,
    }
