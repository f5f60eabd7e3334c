"""Held-out nats a token of n-grams with modified Kneser-Ney smoothing (Chen & Goodman, 1999); JSON lines.

    python benchmarks/text.py --experiment sms --set data.path=SMSSpamCollection [--orders 3 4 5 6]

The end of a text is a token, too. A run's number is `nats_per_token` of `kaem evaluate --metrics log_likelihood`.
"""

import math
from argparse import Namespace
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np
from lib.measure import emit, experiment, script

from kaem_jax.app.data import Text, load_dataset
from kaem_jax.likelihoods import Categorical

Gram = tuple[int, ...]
LEAST = 1e-3  # discount; without one, unseen tokens would be impossible


class Level:
    """One order: discounted counts, and the mass that goes to the order below."""

    def __init__(self, counts: Counter[Gram]):
        of_counts = Counter(counts.values())
        n1, n2, n3, n4 = (max(of_counts[i], 1) for i in (1, 2, 3, 4))
        y = n1 / (n1 + 2 * n2)
        self._discounts = (0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        self._counts, self._totals = counts, Counter[Gram]()
        self._given_away: defaultdict[Gram, float] = defaultdict(float)
        for gram, count in counts.items():
            self._totals[gram[:-1]] += count
            self._given_away[gram[:-1]] += self._discount(count)

    def _discount(self, count: int) -> float:
        return min(max(self._discounts[min(count, 3)], LEAST), count)

    def mix(self, gram: Gram, below: float) -> float:
        """The probability of the last token of `gram`, `below` by the order below."""
        if not (total := self._totals.get(gram[:-1], 0)):
            return below
        count = self._counts.get(gram, 0)
        return (max(count - self._discount(count), 0) + self._given_away[gram[:-1]] * below) / total


class KneserNey:
    """Probabilities of the next token after the last `order` - 1, with three discounts for each order.

    Args:
      texts: sequences of token numbers, each with its end.
      order: n.
      vocabulary: how many tokens there are; the lowest order is mixed with equal probabilities.
    """

    def __init__(self, texts: Sequence[Sequence[int]], order: int, vocabulary: int):
        self.order, self.vocabulary = order, vocabulary
        counts = Counter(gram for text in texts for gram in self._grams(text))
        self._levels: list[Level] = []
        # Below the highest order: how many different tokens come before. Of a text's beginning this is one, where Chen
        # & Goodman count how often it occurs; messages need fewer nats so (docs/decisions/fields-and-texts.md).
        for _ in range(order):
            self._levels.insert(0, Level(counts))
            counts = Counter(gram[1:] for gram in counts)

    def _grams(self, text: Sequence[int]) -> Iterator[Gram]:
        padded = (-1,) * (self.order - 1) + tuple(text)
        return (padded[end - self.order : end] for end in range(self.order, len(padded) + 1))

    def nats(self, text: Sequence[int]) -> float:
        """-log p(text)."""
        total = 0.0
        for gram in self._grams(text):
            found = 1 / self.vocabulary
            for n, level in enumerate(self._levels, 1):
                found = level.mix(gram[-n:], found)
            total -= math.log(found)
        return total


@script(__doc__, experiment="sms", orders=[3, 4, 5, 6], set=[])
def main(given: Namespace) -> None:
    """Prints one line for each order."""
    dataset = load_dataset(experiment(given.experiment, given.set).data)
    assert isinstance(dataset.form, Text), "this is for texts"

    def cut(values: np.ndarray) -> list[list[int]]:
        lengths = np.asarray(Categorical.is_read(jnp.asarray(values))).sum(axis=1)
        return [row[:length].tolist() for row, length in zip(values, lengths, strict=True)]

    train, test = cut(np.asarray(dataset.train)), cut(dataset.held_out)
    for order in given.orders:
        nats = sum(map(KneserNey(train, order, dataset.form.num_tokens).nats, test))
        emit("text", {"model": f"{order}-gram"}, {"nats_per_token": nats / sum(map(len, test))})
