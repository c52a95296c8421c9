"""What all trainings share: the optimiser, averaged weights, a clock that survives restarts, checkpoints."""

import math
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_PLAIN = ("embed", "conv_in", "conv_out", "quant_conv")


class Muon(torch.optim.Optimizer):
    """Muon on hidden matrices (convolutions flattened), AdamW on the rest; `lr` is of AdamW's size for both.

    Needs half the samples of AdamW here.
    """

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], lr: float, decay: float = 0.01) -> None:
        hidden: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, weight in named:
            is_hidden = weight.ndim >= 2 and not any(part in name for part in _PLAIN)
            (hidden if is_hidden else rest).append(weight)
        groups = [{"params": hidden, "hidden": True}, {"params": rest, "hidden": False}]
        super().__init__(groups, {"lr": lr, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            (self._step_hidden if group["hidden"] else self._step_plain)(weights, group["lr"], group["decay"])

    def _step_hidden(self, weights: list[Tensor], lr: float, decay: float) -> None:
        by_shape: dict[torch.Size, list[tuple[Tensor, Tensor, bool]]] = {}
        for weight in weights:
            state = self.state[weight]
            mean = state.setdefault("mean", torch.zeros_like(weight))
            assert weight.grad is not None
            mean.lerp_(weight.grad, 0.05)
            update = weight.grad.lerp(mean, 0.95).reshape(len(weight), -1)
            is_tall = update.shape[0] > update.shape[1]
            update = update.T if is_tall else update
            by_shape.setdefault(update.shape, []).append((weight, update, is_tall))
        for shape, items in by_shape.items():
            updates = orthogonal(torch.stack([update for _, update, _ in items]))
            for (weight, _, is_tall), update in zip(items, updates, strict=True):
                turned = (update.T if is_tall else update).reshape(weight.shape).to(weight.dtype)
                weight.mul_(1 - lr * decay).add_(turned, alpha=-lr * 0.2 * max(shape) ** 0.5)

    def _step_plain(self, weights: list[Tensor], lr: float, decay: float) -> None:
        for weight in weights:
            state = self.state[weight]
            if not state:
                state.update(mean=torch.zeros_like(weight), square=torch.zeros_like(weight), count=0)
            assert weight.grad is not None
            state["count"] += 1
            state["mean"].lerp_(weight.grad, 0.1)
            state["square"].lerp_(weight.grad.square(), 0.01)
            scale = (state["square"] / (1 - 0.99 ** state["count"])).sqrt() + 1e-8
            weight.add_(state["mean"] / (1 - 0.9 ** state["count"]) / scale, alpha=-lr)


def orthogonal(matrices: Tensor, rounds: int = 4) -> Tensor:
    """[n, rows, columns] -> nearly orthogonal, by Newton-Schulz."""
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(rounds):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * (square @ square)) @ x
    return x


class Average:
    """Exponential average of weights: what gets shipped."""

    def __init__(self, modules: list[nn.Module], limit: float = 0.998) -> None:
        self._weights = [weight for module in modules for weight in module.parameters()]
        self._limit = limit
        self.values = [weight.detach().clone() for weight in self._weights]

    @torch.no_grad()
    def update(self, step: int) -> None:
        keep = min(self._limit, (1 + step) / (20 + step))
        torch._foreach_lerp_(self.values, [weight.detach() for weight in self._weights], 1 - keep)

    @torch.no_grad()
    def apply(self) -> None:
        """Put the average into the modules."""
        for weight, value in zip(self._weights, self.values, strict=True):
            weight.copy_(value)


class Budget:
    """A budget of minutes of work over all runs of a stage.

    Without a GPU the process's own time counts, so that neighbours on the machine make a stage last longer, not worse.
    """

    def __init__(self, minutes: float, spent_s: float = 0.0) -> None:
        self._clock = time.monotonic if torch.cuda.is_available() else time.process_time
        self._seconds, self._before, self._start = minutes * 60, spent_s, self._clock()

    @property
    def spent_s(self) -> float:
        return self._before + self._clock() - self._start

    @property
    def progress(self) -> float:
        return min(1.0, self.spent_s / self._seconds) if self._seconds else 1.0

    def rate(self, step: int, top: float, warm_up: int = 50) -> float:
        """Learning rate: up over the first steps, level for a third, then down a cosine."""
        fall = max(0.0, (self.progress - 0.35) / 0.65)
        return top * min(1.0, (step + 1) / warm_up) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fall)))


class Fit:
    """One training: clips, steps, averages, logs, and saves a checkpoint every two minutes and at the end.

    Going on from a checkpoint needs the same modules; a finished stage stays finished until its budget grows.
    """

    def __init__(self, name: str, modules: list[nn.Module], checkpoint: Path, minutes: float, lr: float) -> None:
        named = [
            (f"{number}.{key}", weight)
            for number, module in enumerate(modules)
            for key, weight in module.named_parameters()
            if weight.requires_grad
        ]
        self.modules, self.step, self.samples = modules, 0, 0
        self._name, self._checkpoint, self._lr = name, checkpoint, lr
        self._weights = [weight for _, weight in named]
        self._optimiser = Muon(named, lr)
        self._average = Average(modules)
        self.budget = Budget(minutes)
        self._running: float | None = None
        if checkpoint.exists():
            self._resume(minutes)

    def _resume(self, minutes: float) -> None:
        state: dict[str, Any] = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
        for module, weights in zip(self.modules, state["modules"], strict=True):
            module.load_state_dict(weights)
        if state["optimiser"]:
            self._optimiser.load_state_dict(state["optimiser"])
        for value, kept in zip(self._average.values, state["average"], strict=True):
            value.copy_(kept)
        self.step, self.samples = state["step"], state["samples"]
        self.budget = Budget(minutes, state["spent_s"])

    def steps(self) -> Iterator[int]:
        """Step numbers until the budget is spent; averages the weights into the modules at the end."""
        saved = time.monotonic()
        while self.budget.progress < 1:
            yield self.step
            if time.monotonic() - saved > 120:
                self.save()
                saved = time.monotonic()
        self.save()
        self._average.apply()

    def learn(self, loss: Tensor, samples: int) -> None:
        for group in self._optimiser.param_groups:
            group["lr"] = self.budget.rate(self.step, self._lr)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._weights, 1.0)
        self._optimiser.step()
        self._average.update(self.step)
        self.step, self.samples = self.step + 1, self.samples + samples
        self._running = loss.item() if self._running is None else 0.97 * self._running + 0.03 * loss.item()
        if self.step % 25 == 0:
            speed = self.samples / self.budget.spent_s
            print(
                f"{self._name} {self.step} loss {self._running:.4f} {speed:.0f}/s {self.budget.progress:.0%}",
                flush=True,
            )

    def save(self) -> None:
        state = {
            "modules": [module.state_dict() for module in self.modules],
            "optimiser": self._optimiser.state_dict(),
            "average": self._average.values,
            "step": self.step,
            "samples": self.samples,
            "spent_s": self.budget.spent_s,
        }
        fresh = self._checkpoint.with_suffix(".new")
        torch.save(state, fresh)
        os.replace(fresh, self._checkpoint)


def first_checkpoint(modules: list[nn.Module]) -> dict[str, Any]:
    """The checkpoint of a `Fit` that has not begun: its weights are where it starts from."""
    return {
        "modules": [module.state_dict() for module in modules],
        "optimiser": {},
        "average": Average(modules).values,
        "step": 0,
        "samples": 0,
        "spent_s": 0.0,
    }


def load_average(module_list: list[nn.Module], checkpoint: Path) -> None:
    """Averaged weights of a checkpoint into modules.

    Raises:
        FileNotFoundError: the stage was never run.
    """
    average = Average(module_list)
    for value, kept in zip(
        average.values, torch.load(checkpoint, map_location="cpu", weights_only=True)["average"], strict=True
    ):
        value.copy_(kept)
    average.apply()
