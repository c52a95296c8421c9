"""Which files of a hub's repository a base model needs: often a tenth of what lies there."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from visionsuit.generation.hub import BadRepo, HubFile, HubLied, HubRepo, is_allowed

INDEX = "model_index.json"
#: Parts of pipelines that the engine has no use for.
_UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
#: `model.fp16-00001-of-00002.safetensors` -> `fp16`
_WEIGHTS = re.compile(r"[\w-]+?(?:\.(?P<variant>\w+))?(?:-\d+-of-\d+)?\.safetensors")
_MOST_FILES = 500


def find_index(repo: HubRepo) -> HubFile | None:
    """The file that makes a repository a diffusers folder."""
    return next((file for file in repo.files if file.path == INDEX), None)


def choose_one(repo: HubRepo, wanted: str | None) -> HubFile:
    """The checkpoint that was named, or the only one.

    Raises:
        BadRepo: there is none, or several; the message names them.
    """
    found = [file for file in repo.files if is_allowed(file.path) and file.path.endswith(".safetensors")]
    if wanted is not None:
        for file in found:
            if file.path == wanted:
                return file
        raise BadRepo(f"{repo.repo_id} has no file {wanted} that may be fetched.", field="file")
    found = [file for file in found if "/" not in file.path]
    if len(found) == 1:
        return found[0]
    if not found:
        raise BadRepo(f"{repo.repo_id} is no diffusers folder and has no .safetensors checkpoint.", field="repo_id")
    names = ", ".join(file.path for file in found[:8])
    raise BadRepo(f"{repo.repo_id} has several checkpoints; name one: {names}.", field="file")


def choose_folder(repo: HubRepo, index: Mapping[str, Any]) -> list[HubFile]:
    """Configurations, vocabularies and one set of weights for each part that `model_index.json` names; the half
    precision set where there are two, since it takes half of the disk and the engine computes in that or widens it.

    Raises:
        HubLied, BadRepo: nothing sensible is there.
    """
    parts = {
        name
        for name, value in index.items()
        if isinstance(value, list) and any(value) and not name.startswith("_") and name not in _UNUSED
    }
    chosen = [file for file in repo.files if file.path in (INDEX, "visionsuit.json")]
    weights: dict[str, list[HubFile]] = defaultdict(list)
    for file in repo.files:
        path = PurePosixPath(file.path)
        if len(path.parts) != 2 or path.parts[0] not in parts or not is_allowed(file.path):
            continue
        if file.path.endswith(".safetensors"):
            weights[path.parts[0]].append(file)
        elif not (path.name.startswith(("flax_", "openvino_", "tf_"))):
            chosen.append(file)
    if not weights:
        raise BadRepo(f"{repo.repo_id} has no weights in safetensors form.", field="repo_id")
    for files in weights.values():
        chosen += _one_set(files)
    if len(chosen) > _MOST_FILES:
        raise HubLied(f"{repo.repo_id} has {len(chosen)} files, which is no base model.")
    return sorted(chosen, key=lambda file: (file.path.endswith(".safetensors"), file.path))


def _one_set(files: Sequence[HubFile]) -> list[HubFile]:
    sets: dict[str, list[HubFile]] = defaultdict(list)
    for file in files:
        match = _WEIGHTS.fullmatch(PurePosixPath(file.path).name)
        if match is not None:
            sets[match["variant"] or ""].append(file)
    best = next((variant for variant in ("fp16", "") if variant in sets), None)
    return sets[best] if best is not None else next(iter(sets.values()), [])
