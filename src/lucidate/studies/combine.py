"""Answers of several models on the same images → one answer: four ways, of which two look at validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lucidate.core.records import Predictions

Method = Literal["softmax", "logits", "weighted", "greedy"]
METHODS: tuple[Method, ...] = ("softmax", "logits", "weighted", "greedy")
ROUNDS = 200  # of expectation maximization: the likelihood of a handful of shares is flat to 1e-6 long before
PICKS = 20  # of greedy selection, with replacement: shares in steps of a twentieth


@dataclass(frozen=True, eq=False)
class Combined:
    """How members are combined. averaged: "softmax" or "logits". shares: (M,) float64, adding up to 1."""

    method: Method
    averaged: Literal["softmax", "logits"]
    shares: NDArray[np.float64]

    def logits(self, members: Sequence[Predictions]) -> NDArray[np.float32]:
        """(N, K): of aligned members. Averaged over probabilities, their softmax is the mean of the members'."""
        if self.averaged == "logits":
            return np.tensordot(self.shares, _stack([m.logits for m in members]), axes=1).astype(np.float32)
        mean = np.tensordot(self.shares, _stack([m.probabilities for m in members]), axes=1)
        return np.log(np.maximum(mean, np.finfo(np.float32).tiny)).astype(np.float32)


def combine(members: Sequence[Predictions], *, method: Method = "softmax") -> Combined:
    """Choose how to combine members, by their aligned predictions of the validation split.

    softmax: the plain mean of probabilities, the usual first choice. logits: of logits. weighted: probabilities by
    shares of the highest likelihood on validation. greedy: probabilities by forward selection with replacement, after
    R. Caruana et al., "Ensemble selection from libraries of models" (ICML 2004): the member that raises validation
    accuracy most is added (the lower loss of equals) until none does.
    """
    count = len(members)
    equal = np.full(count, 1 / count)
    if method in ("softmax", "logits"):
        return Combined(method, "logits" if method == "logits" else "softmax", equal)
    probabilities = _stack([m.probabilities for m in members])
    labels = members[0].labels
    shares = fit_shares(probabilities, labels) if method == "weighted" else select_greedily(probabilities, labels)
    return Combined(method, "softmax", shares)


def fit_shares(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Shares (M,) under which the mixture of members gives the labels the highest likelihood.

    probabilities: (M, N, K). The problem is concave; this is expectation maximization for a mixture whose parts are
    fixed (A. Dempster et al., JRSS B 39 (1977)).
    """
    given = probabilities[:, np.arange(len(labels)), labels]
    shares = np.full(len(given), 1 / len(given))
    for _ in range(ROUNDS):
        parts = shares[:, None] * given
        shares = (parts / np.maximum(parts.sum(0), np.finfo(np.float64).tiny)).mean(1)
        shares /= shares.sum()
    return shares


def select_greedily(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Shares (M,) of the members that forward selection picks, some maybe more than once. probabilities: (M, N, K)."""
    rows = np.arange(len(labels))
    picked = np.zeros(len(probabilities))
    total = np.zeros_like(probabilities[0])
    best = (-1.0, -np.inf)
    for _ in range(PICKS):
        scores = []
        for member in probabilities:
            mean = (total + member) / (picked.sum() + 1)
            likelihood = np.log(np.maximum(mean[rows, labels], np.finfo(np.float64).tiny)).mean()
            scores.append((float((mean.argmax(1) == labels).mean()), float(likelihood)))
        position = max(range(len(scores)), key=scores.__getitem__)
        if scores[position] <= best:
            break
        best = scores[position]
        picked[position] += 1
        total += probabilities[position]
    return picked / picked.sum()


def _stack(arrays: list[NDArray[np.float64]] | list[NDArray[np.float32]]) -> NDArray[np.float64]:
    return np.stack(arrays).astype(np.float64)
