"""Is the model less sure when it is wrong; and how sure must it be, if only so many of its answers may be wrong?"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lucidate.analysis.formatting import count, percent
from lucidate.core.records import Predictions

SURE = 0.9  # a prediction at or above this confidence is one that a user would act on


@dataclass(frozen=True, eq=False)
class ConfidenceHistogram:
    """Confidence (probability of the predicted class) of right and of wrong predictions.

    edges: (B + 1,) from 0 to 1; a value on an edge belongs to the bin above it, 1.0 to the last bin.
    right, wrong: (B,) int64 counts. Means are NaN where there are none.
    """

    edges: NDArray[np.float64]
    right: NDArray[np.int64]
    wrong: NDArray[np.int64]
    mean_right: float
    mean_wrong: float
    sure_right: int
    sure_wrong: int

    @property
    def headline(self) -> str:
        rights, wrongs = int(self.right.sum()), int(self.wrong.sum())
        if not wrongs:
            return f"There is no wrong prediction; the right ones are {percent(self.mean_right)} sure on average."
        sure = self.sure_right + self.sure_wrong
        means = f"Wrong predictions are {percent(self.mean_wrong)} sure on average"
        if rights:
            means += f", right ones {percent(self.mean_right)}"
        if not sure:
            return f"{means}; no prediction reaches {100 * SURE:.0f} % confidence."
        verb = "is" if self.sure_wrong == 1 else "are"
        return (
            f"{means}; of {count(sure, 'prediction')} at {100 * SURE:.0f} % confidence or more, "
            f"{count(self.sure_wrong) if self.sure_wrong else 'none'} {verb} wrong."
        )

    def frame(self) -> pd.DataFrame:
        """One row a bin."""
        return pd.DataFrame({"from": self.edges[:-1], "to": self.edges[1:], "right": self.right, "wrong": self.wrong})


def confidence_histogram(predictions: Predictions, *, bins: int = 20) -> ConfidenceHistogram:
    """Count confidences of right and wrong predictions in equal bins over [0, 1]."""
    edges = np.linspace(0, 1, bins + 1)
    right, wrong = (predictions.confidence[predictions.correct == correct] for correct in (True, False))
    return ConfidenceHistogram(
        edges=edges,
        right=np.histogram(right, edges)[0],
        wrong=np.histogram(wrong, edges)[0],
        mean_right=float(right.mean()) if right.size else float("nan"),
        mean_wrong=float(wrong.mean()) if wrong.size else float("nan"),
        sure_right=int((right >= SURE).sum()),
        sure_wrong=int((wrong >= SURE).sum()),
    )


LEVELS = 40  # shares of images to answer that are tried: 2.5 %, 5 % … 100 %
RISK, DELTA = 0.05, 0.05

Abstain = Literal["never", "below", "always"]


@dataclass(frozen=True)
class Selective:
    """A confidence at which to answer, so that at most a stated share of the answers is wrong.

    abstain: "never": the model keeps the risk when it answers everything (threshold 0); "below": the threshold;
    "always": no threshold could be shown to keep it (threshold None). risk: largest share of wrong answers. delta:
    largest chance that it is exceeded all the same, over draws of the validation images. coverage: share of the images
    that are answered; error: of these, how many were wrong, and bound: how many could be; NaN where none is answered.
    """

    abstain: Abstain
    threshold: float | None
    risk: float
    delta: float
    coverage: float
    error: float
    bound: float
    num_images: int
    num_wrong: int

    @property
    def headline(self) -> str:
        limit = f"{100 * self.risk:g} %"
        if self.threshold is None:
            wanted = fewest_images(self.risk, delta=self.delta)
            if self.num_images < wanted:
                return (
                    f"No threshold can be shown to keep wrong answers at {limit}: that takes {wanted:,} images at "
                    f"least, and there are {self.num_images:,}."
                )
            return f"No threshold keeps wrong answers at {limit}: sure answers are wrong too often."
        sure = f"{percent(self.error)} of its answers are wrong, {percent(self.bound)} at most"
        if self.abstain == "never":
            return f"It may answer everything: {sure} ({count(self.num_images, 'image')})."
        return (
            f"Answering at {percent(self.threshold)} confidence or more, it answers {percent(self.coverage)} of the "
            f"images, and {sure} ({count(self.num_images, 'image')})."
        )


def answer_when_sure(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], *, risk: float = RISK, delta: float = DELTA
) -> Selective:
    """The lowest threshold that is shown to keep the risk: with probability 1 - delta, at most `risk` of what a model
    answers is wrong, for images drawn as these (N,) were.

    Forty shares of images to answer are fixed beforehand, and the error's upper Clopper–Pearson bound must not exceed
    the risk. Half of delta is spent on answering everything, which few images can show, the rest evenly on the others;
    so the best of those that pass is safe to take (Bonferroni). Answered is what is *above* the confidence of the last
    image left out: given that confidence, the others are independent draws, and the number wrong is binomial, so the
    bound is exact at any number of images. Equal confidences are answered together or not at all. The problem is that
    of Y. Geifman and R. El-Yaniv, arXiv:1705.08500; their search by halves supposes that the bound falls as the
    threshold rises, which it does not where few images are left.
    """
    total = len(confidence)
    order = np.sort(confidence)
    for level in range(LEVELS, 0, -1):  # most answered first: the first to pass is the lowest threshold
        left_out = total - ceil(total * level / LEVELS)
        threshold = float(np.nextafter(order[left_out - 1], 2.0)) if left_out else 0.0
        answered = confidence >= threshold
        number, wrong = int(answered.sum()), int((answered & ~right).sum())
        if not number:
            continue
        bound = error_bound(wrong, number, delta=delta / 2 / (LEVELS - 1 if left_out else 1))
        if bound <= risk:
            kind: Abstain = "below" if left_out else "never"
            found = (number / total, wrong / number, bound)
            return Selective(kind, threshold, risk, delta, *found, total, int((~right).sum()))
    nan = float("nan")
    return Selective("always", None, risk, delta, 0.0, nan, nan, total, int((~right).sum()))


def error_bound(wrong: int, number: int, *, delta: float) -> float:
    """One-sided upper bound of a share at confidence 1 - delta. C. J. Clopper, E. S. Pearson, Biometrika 26 (1934)."""
    from scipy.stats import beta  # takes half a second, which most findings need not wait

    return 1.0 if wrong == number else float(beta.ppf(1 - delta, wrong + 1, number - wrong))


def fewest_images(risk: float, *, delta: float = DELTA) -> int:
    """How many images, all of them right, it takes to show a risk at all."""
    return ceil(log(delta / 2) / log(1 - risk))
