"""`python -m benchmarks.demo_model <stage>`: build, train, export and judge the base model that ships.

data        fetch the packages (or take them from --packages) and render them
train       VAE, tokenizer, codes, text encoder, UNet; goes on where it stopped, in a new work folder from --model
export      write the pipeline folder
loras       train the LoRAs of the held-out styles on the exported folder, from those that lie in --loras
evaluate    train the judge if need be, then figures and contact sheets
sheet       one contact sheet of given prompts

A CUDA device is used where there is one (CUDA_VISIBLE_DEVICES= keeps it out of this).
"""

import argparse
import json
import os
from pathlib import Path

# Small layers: more threads only wait for each other, and a desktop stays usable.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks.demo_model import artwork, vocabulary
from benchmarks.demo_model.committed import adopt
from benchmarks.demo_model.evaluation import evaluate
from benchmarks.demo_model.export import SUGGESTIONS, export, load_pipeline, render, sheet
from benchmarks.demo_model.judge import train_judge
from benchmarks.demo_model.loras import train_lora
from benchmarks.demo_model.training import Studio, train_joint, train_text, train_unet
from benchmarks.demo_model.vae_training import train as train_vae

#: Shares of a training budget.
STAGES = {"vae": 0.15, "text": 0.2, "unet": 0.4, "joint": 0.25}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["data", "train", "export", "loras", "evaluate", "sheet"])
    parser.add_argument("--work", type=Path, default=Path("data/demo-model"), help="artwork, checkpoints, judge")
    parser.add_argument("--packages", type=Path, help="folder of npm archives; default <work>/packages")
    parser.add_argument("--model", type=Path, default=Path("models_cache/demo"))
    parser.add_argument("--loras", type=Path, default=Path("models_cache/demo-loras"))
    parser.add_argument("--out", type=Path, help="where figures and sheets go; default <work>/evaluation")
    parser.add_argument("--budget", type=float, default=30, help="minutes of work, over all runs of the stage")
    parser.add_argument("--fresh", action="store_true", help="from random weights, whatever --model and --loras hold")
    parser.add_argument("--only", choices=[*STAGES, *vocabulary.HELD_OUT_STYLES], help="one training, one LoRA")
    parser.add_argument("--asked", type=int, default=200, help="training prompts that are evaluated")
    parser.add_argument("--prompt", action="append", default=[])
    options = parser.parse_args(arguments)
    work: Path = options.work
    out = options.out or work / "evaluation"
    match options.stage:
        case "data":
            artwork.build(work, options.packages or work / "packages")
        case "train":
            if not options.fresh and adopt(options.model, work):
                print(f"goes on from {options.model}", flush=True)
            train(work, options.budget, options.only)
        case "export":
            export(Studio(work), options.model)
        case "loras":
            names = [options.only] if options.only else list(vocabulary.HELD_OUT_STYLES)
            words = vocabulary.load(work)
            for name in names:
                minutes = options.budget / len(names)
                train_lora(name, options.model, work, words, minutes, options.loras, fresh=options.fresh)
        case "evaluate":
            words = vocabulary.load(work)
            train_judge(work, words, options.budget)
            figures = evaluate(options.model, options.loras, work, words, out, options.asked)
            print(json.dumps(figures, indent=2))
        case "sheet":
            prompts = options.prompt or SUGGESTIONS
            pictures = render(load_pipeline(options.model), prompts, list(range(len(prompts))))
            sheet([pictures[start : start + 12] for start in range(0, len(pictures), 12)], out / "sheet.png")


def train(work: Path, budget: float, only: str | None) -> None:
    """All trainings in their order, or one of them with the whole budget."""
    minutes = {name: budget * share for name, share in STAGES.items()} if only is None else {only: budget}
    if "vae" in minutes:
        train_vae(work, minutes["vae"])
    rest = {"text": train_text, "unet": train_unet, "joint": train_joint}
    if not rest.keys() & minutes.keys():
        return
    studio = Studio(work)
    for name, stage in rest.items():
        if name in minutes:
            stage(studio, minutes[name])


if __name__ == "__main__":
    main()
