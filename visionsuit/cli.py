"""The command line: `visionsuit --help`."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from visionsuit.accounts import service as accounts
from visionsuit.boot import build_runtime, prepare
from visionsuit.core.actor import SYSTEM, Role
from visionsuit.core.config import Settings
from visionsuit.core.errors import AppError
from visionsuit.db import migrate
from visionsuit.demo import seed as demo
from visionsuit.doctor import run_checks
from visionsuit.engine.base import DTYPES
from visionsuit.generation import base_model_admin
from visionsuit.generation.base_model_admin import Listed, list_all
from visionsuit.log import configure_logging
from visionsuit.runtime import Runtime

app = typer.Typer(no_args_is_help=True, add_completion=False, help="VisionSuit from the command line.")
models = typer.Typer(no_args_is_help=True, help="The list of base models.")
app.add_typer(models, name="models")
console = Console()


def open_runtime() -> Runtime:
    settings = Settings()
    configure_logging(settings)
    return build_runtime(settings)


@app.command()
def run() -> None:
    """Serve the app (the same as `python app.py`)."""
    import runpy

    runpy.run_module("app", run_name="__main__")


@app.command("create-admin")
def create_admin(
    email: Annotated[str, typer.Option(help="E-mail to sign in with.")],
    password: Annotated[
        str, typer.Option(prompt=True, hide_input=True, envvar="VISIONSUIT_PASSWORD", help="8 to 1,024 characters.")
    ],
    name: Annotated[str, typer.Option(help="Shown to others.")] = "Administrator",
    bio: Annotated[str, typer.Option(help="Shown on the profile.")] = "",
    role: Annotated[Role, typer.Option(help="ADMIN or SUPERADMIN.")] = Role.SUPERADMIN,
) -> None:
    """Make an administrator, or give an existing account that role, this password, and activate it."""
    runtime = open_runtime()
    migrate(runtime.database)
    with runtime.open_ctx(SYSTEM) as ctx:
        accounts.upsert_admin(ctx, email=email, password=password, name=name, bio=bio, role=role)
    console.print(f"{email} is {role} and may sign in.", markup=False)


@app.command("seed-demo")
def seed_demo() -> None:
    """Fill a demonstration library: LoRAs made for the base model, pictures rendered here and now."""
    runtime = open_runtime()
    prepare(runtime)
    demo.seed(runtime, say=lambda line: console.print(line, markup=False))


@models.command("list")
def list_models() -> None:
    """Base models, and why those that cannot be used cannot."""
    runtime = open_runtime()
    migrate(runtime.database)
    with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        _show(list_all(ctx))


@models.command("sync")
def sync_models() -> None:
    """Make the list of base models say what lies in the models folder, and in the storage's bucket of base models."""
    runtime = open_runtime()
    migrate(runtime.database)
    base_model_admin.sync(runtime, SYSTEM)
    with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        _show(list_all(ctx))


@models.command("fetch")
def fetch_model(name: Annotated[str, typer.Argument(help="Its label or name, as `models list` shows it.")]) -> None:
    """Have the running app download a base model that lies in the storage or on a hub."""
    runtime = open_runtime()
    migrate(runtime.database)
    with runtime.open_ctx(SYSTEM) as ctx:
        row = base_model_admin.get_named(ctx, name)
        base_model_admin.fetch_again(ctx, row.public_id)
        console.print(f"{row.label} is downloaded as soon as the app runs.", markup=False)


@models.command("dtype")
def set_dtype(
    name: Annotated[str, typer.Argument(help="Its label or name, as `models list` shows it.")],
    dtype: Annotated[str, typer.Argument(help=" | ".join(DTYPES))],
) -> None:
    """Choose the number format that a base model is calculated in."""
    runtime = open_runtime()
    migrate(runtime.database)
    with runtime.open_ctx(SYSTEM) as ctx:
        row = base_model_admin.get_named(ctx, name)
        _show([base_model_admin.edit(ctx, row.public_id, {"dtype": dtype})])


def _show(listed: list[Listed]) -> None:
    table = Table("base model", "family", "number format", "from", "state")
    for one in listed:
        row = one.row
        state = row.trouble or ("offered" if row.is_enabled else "disabled")
        table.add_row(row.label, row.family, row.dtype, row.repo_id or row.folder, state)
    console.print(table)


@app.command()
def doctor() -> None:
    """Check device, disk, database, storage and base models, and say what to do."""
    table = Table("check", "state", "detail")
    failed = False
    for check in run_checks(open_runtime()):
        failed |= not check.ok
        table.add_row(check.name, "ok" if check.ok else "FAILED", check.detail)
    console.print(table)
    if failed:
        raise typer.Exit(1)


def main() -> None:
    """Entry point; errors a person can cause are one line, not a traceback."""
    try:
        app()
    except AppError as error:
        console.print(f"Error: {error.message}", style="red", markup=False)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
