"""Settings, read once in `app.py` or the command line, then handed on.

Every field is an environment variable `VISIONSUIT_<NAME>` (nested: `VISIONSUIT_STORAGE__KIND`); an `.env` file in
the working directory is read too. What an administrator changes at run time is a row in `site/`, with the value
here as its default.
"""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class StorageKind(StrEnum):
    FOLDER = "folder"
    S3 = "s3"


class EngineKind(StrEnum):
    DIFFUSERS = "diffusers"
    MOCK = "mock"


class Offload(StrEnum):
    """Whether weights of base models that are not calculated with wait in host memory."""

    AUTO = "auto"  #: Models that others push off the device do; parts of a model where it does not fit as a whole.
    ALWAYS = "always"  #: These, and text encoders and VAEs always.
    NEVER = "never"


class GeneratorAccess(StrEnum):
    """Who may render."""

    ADMINS = "admins"
    CURATORS = "curators"
    MEMBERS = "members"
    OPEN = "open"


class RegistrationPolicy(StrEnum):
    OPEN = "open"
    CLOSED = "closed"


class StorageSettings(BaseModel):
    kind: StorageKind = Field(StorageKind.FOLDER, description="Where files live: `folder` or `s3`.")
    folder: Path | None = Field(
        None, description="Folder for `folder` storage; `storage/` in the data folder if unset."
    )
    endpoint: str | None = Field(None, description="S3 endpoint address (MinIO, R2, ...); AWS if unset.")
    region: str = Field("us-east-1", description="S3 region.")
    access_key: str | None = Field(None, description="S3 access key; boto3's own chain if unset.")
    secret_key: SecretStr | None = Field(None, description="S3 secret key.")
    bucket_prefix: str = Field("visionsuit-", description="Put before every bucket's name.")
    path_style: bool = Field(True, description="Path-style S3 addresses (MinIO needs them).")


def _hub_endpoint() -> str:
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"


class HubSettings(BaseModel):
    endpoint: str = Field(
        default_factory=_hub_endpoint, description="Address of the model hub; `HF_ENDPOINT`, or huggingface.co."
    )
    token: SecretStr | None = Field(None, description="Access token of the hub, for repositories that ask for one.")
    reserve_bytes: int = Field(2 * 1024**3, description="Disk space that downloads leave free, bytes.")


class Limits(BaseModel):
    weights_bytes: int = Field(2 * 1024**3, description="Largest weights file (safetensors or zip), bytes.")
    image_bytes: int = Field(10 * 1024**2, description="Largest image file, bytes.")
    image_pixels: int = Field(64_000_000, description="Most pixels of a decoded image.")
    avatar_bytes: int = Field(5 * 1024**2, description="Largest avatar file, bytes.")
    files_per_upload: int = Field(12, description="Most files in one upload request.")
    prompt_characters: int = Field(4000, description="Longest prompt and negative prompt.")
    prompt_soft_characters: int = Field(500, description="Length at which the prompt counter turns amber.")
    loras_per_mix: int = Field(12, description="Most LoRAs in one mix.")
    steps: int = Field(200, description="Most denoising steps.")
    images_per_request: int = Field(8, description="Most images of one render request.")
    sheet_cells: int = Field(36, description="Most cells of one X/Y sheet.")
    request_megapixel_steps: int = Field(
        4000, description="Most work of one request: steps of all its pictures, times their millions of pixels."
    )
    request_megapixels: int = Field(
        256, description="Most pixels of one request: those of all its finished pictures, in millions."
    )
    generation_inputs: int = Field(30, description="Most uploaded pictures to work from that are kept for a person.")
    active_generations: int = Field(5, description="Most waiting or running renders a person.")


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="VISIONSUIT_", env_nested_delimiter="__", env_file=".env", extra="ignore"
    )

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(7860, description="Port to listen on.")
    data_dir: Path = Field(Path("data"), description="Folder for database, files, signing secret and caches.")
    models_dir: Path = Field(
        Path("models_cache"), description="Folder of base models: diffusers folders and `.safetensors` checkpoints."
    )
    base_model_dirs: list[Path] = Field(
        default_factory=list, description="Further folders from which administrators may add base models, as JSON."
    )
    hub: HubSettings = Field(default_factory=HubSettings)
    database_url: str | None = Field(None, description="SQLAlchemy address; SQLite in the data folder if unset.")
    storage: StorageSettings = StorageSettings()
    engine: EngineKind = Field(
        EngineKind.DIFFUSERS, description="`diffusers`, or `mock` (coloured pictures, for tests)."
    )
    device: str = Field("auto", description="`auto`, `cuda`, `mps` or `cpu`.")
    threads: int | None = Field(None, description="CPU threads of the engine; the number of cores if unset.")
    engine_offload: Offload = Field(
        Offload.AUTO,
        description="Weights in host memory instead of the GPU's: `auto` as memory is short, "
        "`always` text encoders and VAEs, `never`.",
    )
    admin_email: str | None = Field(None, description="E-mail of the administrator made at first start.")
    admin_password: SecretStr | None = Field(None, description="Password of that administrator.")
    site_title: str = Field("VisionSuit", description="Name shown in the browser.")
    registration: RegistrationPolicy = Field(
        RegistrationPolicy.OPEN, description="Self-registration: `open` or `closed`."
    )
    generator_access: GeneratorAccess = Field(
        GeneratorAccess.MEMBERS, description="Who may render: `admins`, `curators`, `members` or `open`."
    )
    auto_test_sheets: bool = Field(True, description="Render a test sheet of every new LoRA when nobody waits.")
    session_days: int = Field(7, description="Days a login stays good.")
    public_url: str | None = Field(None, description="Address people use, when a proxy stands before the app.")
    trusted_proxies: str = Field("", description="Comma-separated addresses of proxies whose X-Forwarded-For counts.")
    log_level: str = Field("INFO", description="`DEBUG`, `INFO`, `WARNING` or `ERROR`.")
    log_json: bool = Field(False, description="Log lines as JSON.")
    worker: bool = Field(True, description="Run queue worker and scheduler in this process.")
    limits: Limits = Limits()

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'visionsuit.db'}"

    @property
    def storage_folder(self) -> Path:
        return self.storage.folder or self.data_dir / "storage"

    @property
    def scratch_dir(self) -> Path:
        """Files on their way in; emptied at every start."""
        return self.data_dir / "scratch"
