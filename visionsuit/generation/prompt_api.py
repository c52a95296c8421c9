"""/api/wildcards and /api/prompts: help with writing prompts."""

from visionsuit.core.errors import NotSignedIn
from visionsuit.generation.prompt_check import PromptCheck, check_prompt
from visionsuit.generation.schemas import (
    PromptCheckOut,
    PromptIn,
    PromptLoraOut,
    PromptOut,
    PromptProblemOut,
    WildcardListOut,
    WildcardOut,
)
from visionsuit.generation.wildcards import list_wildcards
from visionsuit.router import ReadCtxDep, Router

router = Router(tags=["generator"])


@router.get("/api/wildcards", summary="Wildcard lists for prompts")
def get_wildcards(ctx: ReadCtxDep) -> WildcardListOut:
    """The names that `__name__` in a prompt may have, each with its first entries."""
    if ctx.actor.is_guest:
        raise NotSignedIn("Sign in to see the wildcards.")
    return WildcardListOut(
        items=[
            WildcardOut(name=one.name, count=len(one.lines), examples=list(one.examples))
            for one in list_wildcards(ctx.settings)
        ]
    )


@router.post("/api/prompts/check", summary="Count a prompt's tokens and look at its syntax")
def check_prompts(ctx: ReadCtxDep, body: PromptIn) -> PromptCheckOut:
    """Exactly as the base model counts, without loading it. Changes nothing and is quick: meant for a counter beside
    the field, and for a mixer that follows the prompt's LoRA tags."""
    texts = {"prompt": body.prompt, "negative_prompt": body.negative_prompt}
    return PromptCheckOut(
        **{
            field: _out(check_prompt(ctx, text, field, base_model_id=body.base_model_id, seed=body.seed))
            for field, text in texts.items()
        }
    )


def _out(check: PromptCheck) -> PromptOut:
    return PromptOut(
        text=check.text,
        tokens=check.size and check.size.tokens,
        chunks=check.size and check.size.chunks,
        room=check.size and check.size.room,
        loras=[PromptLoraOut(tag=tag, **lora) for tag, lora in check.loras],
        problems=[PromptProblemOut.model_validate(error.as_json()) for error in check.problems],
    )
