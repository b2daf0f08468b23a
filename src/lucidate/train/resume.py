"""Checkpoints that a killed training goes on from, to the same bits.

    checkpoints/<epoch>-<step>/
        tensors.safetensors    model, best weights, optimizer, sums of the epoch so far
        state.json             place, history, seconds
        manifest.json          SHA-256 of the other two

Order, augmentation and dropout are functions of (seed, epoch, step), so no generator needs saving. A checkpoint is
written aside, flushed to disk and renamed; two are kept, and a damaged one gives way to the one before it.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn, optim

from lucidate.core.errors import RunError
from lucidate.core.progress import Reporter
from lucidate.core.records import History, jsonable
from lucidate.core.rundir import atomic_path, sha256, sync_folder

KEPT = 2
EPOCH_SECONDS = 1.0  # at the end of an epoch, save if the last checkpoint is older than this
STEP_SECONDS = 20.0  # within an epoch: what a killed training loses at most


@dataclass
class State:
    """Where a training is: the one thing in it that changes.

    epoch, step: the next step to take, both from 0. best: weights of the best validation accuracy so far.
    sums: (2,) float32, loss and right answers of this epoch's images so far; seen: their number.
    seconds: what earlier processes spent on this epoch.
    """

    model: nn.Module
    optimizer: optim.Optimizer
    best: dict[str, Tensor]
    sums: Tensor
    epoch: int = 0
    step: int = 0
    seen: int = 0
    seconds: float = 0.0
    history: History = field(default_factory=History)


class Checkpoints:
    """The checkpoints of one run, newest last."""

    def __init__(self, folder: Path, *, reporter: Reporter) -> None:
        self.folder = folder
        self._reporter = reporter
        self._saved = time.monotonic()

    def due(self, *, epoch_ended: bool) -> bool:
        """Whether enough time has passed since the last one."""
        return time.monotonic() - self._saved >= (EPOCH_SECONDS if epoch_ended else STEP_SECONDS)

    def save(self, state: State) -> Path:
        """Write one, then drop all but the newest two. Raises RunError when it cannot be written."""
        target = self.folder / f"{state.epoch:05d}-{state.step:07d}"
        place = {"epoch": state.epoch, "step": state.step, "seen": state.seen, "seconds": state.seconds}
        try:
            with atomic_path(target) as temporary:
                temporary.mkdir()
                _write(temporary / "tensors.safetensors", save(_tensors(state)))
                _write(temporary / "state.json", json.dumps({**place, "history": jsonable(state.history)}).encode())
                hashes = {path.name: sha256(path) for path in temporary.iterdir()}
                _write(temporary / "manifest.json", json.dumps(hashes, indent=1).encode())
            sync_folder(self.folder)
        except OSError as error:
            raise RunError(
                f"checkpoint: expected {target} to be writable, received {error.strerror}; what was saved before is "
                "whole: mend that and go on with --resume"
            ) from None
        for old in self.all()[:-KEPT]:
            shutil.rmtree(old)
        self._saved = time.monotonic()
        return target

    def all(self) -> list[Path]:
        """Folders of the checkpoints, oldest first."""
        return sorted(path for path in self.folder.glob("*-*") if path.is_dir() and not path.name.startswith("."))

    def restore(self, state: State) -> bool:
        """Fill `state` from the newest checkpoint that is whole; False when there is none."""
        for path in reversed(self.all()):
            try:
                _restore(path, state)
            except (OSError, ValueError, KeyError, SafetensorError, RuntimeError) as error:
                reason = " ".join(str(error).split())[:120]
                self._reporter.say(f"checkpoint {path.name} is damaged ({reason}): falling back to the one before")
                continue
            self._reporter.say(f"resumed at epoch {state.epoch + 1}, step {state.step}")
            return True
        return False

    def remove(self) -> None:
        """Delete them all: the training has ended and its weights stand."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _tensors(state: State) -> dict[str, Tensor]:
    """Every tensor of a state under one name each, in memory order of their own."""
    named = {f"model.{name}": value for name, value in state.model.state_dict().items()}
    named |= {f"best.{name}": value for name, value in state.best.items()}
    for index, values in state.optimizer.state_dict()["state"].items():
        named |= {f"optimizer.{index}.{key}": value for key, value in values.items() if value is not None}
    named["sums"] = state.sums
    # Clones: safetensors refuses tensors that share memory, and model and best may.
    return {name: value.detach().cpu().contiguous().clone() for name, value in named.items()}


def _restore(path: Path, state: State) -> None:
    """Fill `state`; raises one of many errors when anything is not as it was written."""
    hashes = json.loads((path / "manifest.json").read_bytes())
    for name in ("tensors.safetensors", "state.json"):
        if sha256(path / name) != hashes[name]:
            raise ValueError(f"checksum of {name} differs")
    tensors = load((path / "tensors.safetensors").read_bytes())
    place = json.loads((path / "state.json").read_bytes())
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        if rest:
            parts[part][rest] = value
    state.model.load_state_dict(parts["model"])
    like = state.model.state_dict()
    state.best = {name: _as(value, like[name]) for name, value in parts["best"].items()}
    _restore_optimizer(state.optimizer, parts["optimizer"])
    state.sums = tensors["sums"].to(state.sums.device)
    state.history = History.from_lists(place.pop("history"))
    for key, value in place.items():
        setattr(state, key, value)


def _restore_optimizer(optimizer: optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    states: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        states.setdefault(int(index), {})[key] = _as(value, parameters[int(index)])
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})


def _as(value: Tensor, like: Tensor) -> Tensor:
    """The value laid out in memory, and placed, as `like`, if it has its shape.

    Another layout would hold the same numbers, but fused kernels may round them differently at their ends.
    """
    return torch.empty_like(like).copy_(value) if value.shape == like.shape and value.ndim else value


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
