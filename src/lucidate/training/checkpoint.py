"""Checkpoints from which a killed training is resumed, to the same bits.

    checkpoints/<epoch>-<step>/
        tensors.safetensors    model, best and averaged weights, optimizer, sums of the epoch so far, losses of images
        state.json             position, history, seconds
        manifest.json          SHA-256 of the other two

Order, augmentation and dropout are functions of (seed, epoch, step), so no generator needs saving. A checkpoint is
written aside, flushed to disk and renamed; two are kept, and a damaged one gives way to the one before it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn, optim

from lucidate.core.atomic import atomic_path, sha256, sync_folder
from lucidate.core.errors import DiskFullError, RunError
from lucidate.core.progress import Reporter
from lucidate.core.records import History, jsonable
from lucidate.core.text import one_line
from lucidate.training.distributed import ProcessGroup

KEPT = 2
EPOCH_SECONDS = 1.0  # at the end of an epoch, save if the last checkpoint is older than this
PLAIN_TENSORS = ("sums", "losses", "fresh")  # fields of a state that are one tensor each
STEP_SECONDS = 20.0  # within an epoch: what a killed training loses at most


@dataclass
class State:
    """Where a training is: the one thing in it that changes.

    epoch, step: the next step to take, both from 0. best: weights of the best validation accuracy so far. average:
    averaged weights, where the recipe asks for them. sums: (processes, 2) float32, loss and right answers of this
    epoch's images so far; each process adds to its own row. seen: images of the epoch so far, in all processes.
    losses, fresh: (M,) float32, of each training image when it was last seen before this epoch, and in it (0: not yet,
    or in another process); where the recipe goes by them.
    seconds: what earlier processes spent on this epoch.
    """

    model: nn.Module
    optimizer: optim.Optimizer
    best: dict[str, Tensor]
    sums: Tensor
    average: dict[str, Tensor] | None = None
    losses: Tensor | None = None
    fresh: Tensor | None = None
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

    def save(self, state: State, group: ProcessGroup) -> None:
        """Write one, then drop all but the newest two; all processes call it, the main process writes.

        Raises RunError when it cannot be written.
        """
        self._saved = time.monotonic()
        sums, fresh = group.sum(state.sums), group.sum(state.fresh) if state.fresh is not None else None
        if not group.is_main:
            return
        target = self.folder / f"{state.epoch:05d}-{state.step:07d}"
        position = {"epoch": state.epoch, "step": state.step, "seen": state.seen, "seconds": state.seconds}
        try:
            with atomic_path(target) as temporary:
                temporary.mkdir()
                _write(temporary / "tensors.safetensors", save(_tensors(replace(state, sums=sums, fresh=fresh))))
                _write(temporary / "state.json", json.dumps({**position, "history": jsonable(state.history)}).encode())
                hashes = {path.name: sha256(path) for path in temporary.iterdir()}
                _write(temporary / "manifest.json", json.dumps(hashes, indent=1).encode())
            sync_folder(self.folder)
        except DiskFullError as error:
            raise RunError(f"{error}; what was saved before is whole: go on with --resume") from None
        except OSError as error:
            raise RunError(
                f"checkpoint: expected {target} to be writable, received {error.strerror}; what was saved before is "
                "whole: mend that and go on with --resume"
            ) from None
        for old in [path for path in self.all() if path != target][: 1 - KEPT]:
            shutil.rmtree(old)
        self._saved = time.monotonic()

    def all(self) -> list[Path]:
        """Folders of the checkpoints, oldest first."""
        return sorted(path for path in self.folder.glob("*-*") if path.is_dir() and not path.name.startswith("."))

    def restore(self, state: State, group: ProcessGroup) -> bool:
        """Fill `state` from the newest checkpoint that is whole; False when there is none.

        The main process reads it; the others need not see the folder.
        """
        found = self._newest(state) if group.is_main else (b"", b"")
        tensors, position = (group.broadcast(content) for content in found)
        if not position:
            return False
        if not group.is_main:
            _fill(state, tensors, position)
            if state.fresh is not None:
                state.fresh.zero_()  # the main process holds what all have seen
        own = state.sums[group.rank].clone()
        state.sums.zero_()
        state.sums[group.rank] = own
        self._reporter.say(f"resumed at epoch {state.epoch + 1}, step {state.step}")
        return True

    def _newest(self, state: State) -> tuple[bytes, bytes]:
        """Contents of the newest checkpoint that fills `state`: tensors and position; empty where there is none."""
        for path in reversed(self.all()):
            try:
                tensors, position = _read(path)
                _fill(state, tensors, position)
            except (OSError, ValueError, KeyError, SafetensorError, RuntimeError) as error:
                reason = one_line(error, limit=120)
                self._reporter.say(f"checkpoint {path.name} is damaged ({reason}): falling back to the one before")
                continue
            return tensors, position
        if self.all():
            raise RunError(
                f"--resume: expected a checkpoint that is whole, received only damaged ones in {self.folder}; "
                "delete that folder to train from the beginning"
            )
        return b"", b""

    def remove(self) -> None:
        """Delete them all: the training has ended and its weights stand."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _tensors(state: State) -> dict[str, Tensor]:
    """Every tensor of a state under a name of its own."""
    named = {f"model.{name}": value for name, value in state.model.state_dict().items()}
    named |= {f"best.{name}": value for name, value in state.best.items()}
    named |= {f"average.{name}": value for name, value in (state.average or {}).items()}
    for index, values in state.optimizer.state_dict()["state"].items():
        named |= {f"optimizer.{index}.{key}": value for key, value in values.items() if value is not None}
    named |= {name: value for name in PLAIN_TENSORS if (value := getattr(state, name)) is not None}
    # Clones: safetensors refuses tensors that share memory, and model and best may.
    return {name: value.detach().cpu().contiguous().clone() for name, value in named.items()}


def _read(path: Path) -> tuple[bytes, bytes]:
    """The two files of a checkpoint. Raises OSError, KeyError or ValueError when they are not as they were written."""
    hashes = json.loads((path / "manifest.json").read_bytes())
    contents = [(path / name).read_bytes() for name in ("tensors.safetensors", "state.json")]
    for name, content in zip(("tensors.safetensors", "state.json"), contents, strict=True):
        if hashlib.sha256(content).hexdigest() != hashes[name]:
            raise ValueError(f"checksum of {name} differs")
    return contents[0], contents[1]


def _fill(state: State, content: bytes, position: bytes) -> None:
    """Fill `state`; raises one of many errors when anything does not fit."""
    tensors, values = load(content), json.loads(position)
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "average": {}, "optimizer": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        if rest:
            parts[part][rest] = value
    state.model.load_state_dict(parts["model"])
    like = state.model.state_dict()
    state.best = {name: _as(value, like[name]) for name, value in parts["best"].items()}
    if state.average is not None:
        state.average = {name: _as(value, like[name]) for name, value in parts["average"].items()}
    _restore_optimizer(state.optimizer, parts["optimizer"])
    for name in PLAIN_TENSORS:
        if (own := getattr(state, name)) is not None:
            own.copy_(tensors[name])
    state.history = History.from_lists(values.pop("history"))
    for key, value in values.items():
        setattr(state, key, value)


def _restore_optimizer(optimizer: optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    states: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        states.setdefault(int(index), {})[key] = _as(value, parameters[int(index)])
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})


def _as(value: Tensor, like: Tensor) -> Tensor:
    """The value with the memory layout and device of `like`, if it has its shape.

    Another layout would hold the same numbers, but fused kernels may round them differently at their ends.
    """
    return torch.empty_like(like).copy_(value) if value.shape == like.shape and value.ndim else value


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
