"""Interpolated modified Kneser-Ney with dictionaries of tuples, word by word: what the arrays are compared with."""

from collections import Counter, defaultdict

Gram = tuple[int, ...]


class SlowKneserNey:
    """The definition. What stands before the text's first word is None, a word of its own."""

    def __init__(self, ids: list[int], size: int, order: int) -> None:
        self.size, self.order = size, order
        self.counts = [Counter(tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)) for n in range(order + 1)]
        self.adjusted: list[dict[Gram, int]] = [{} for _ in range(order + 1)]
        for n in range(1, order):
            before = defaultdict(set)
            for i in range(len(ids) - n + 1):
                before[tuple(ids[i : i + n])].add(ids[i - 1] if i else None)
            self.adjusted[n] = {gram: len(words) for gram, words in before.items()}
        self.adjusted[order] = dict(self.counts[order])
        self.discounts = [self._discounts(Counter(counts.values())) for counts in self.adjusted]
        self.followers: dict[Gram, dict[int, int]] = defaultdict(dict)
        for counts in self.adjusted:
            for gram, count in counts.items():
                self.followers[gram[:-1]][gram[-1]] = count

    @staticmethod
    def _discounts(n: Counter[int]) -> list[float]:
        if n[1] * n[2] * n[3]:
            y = n[1] / (n[1] + 2 * n[2])
            found = [0, 1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]]
            if min(found[1:]) > 0:
                return found
        return [0, 0.5, 1.0, 1.5]

    def probability(self, context: Gram, word: int) -> float:
        """Return p(word | context), of a context of at most order - 1 words."""
        lower = self.probability(context[1:], word) if context else 1 / self.size
        followers = self.followers.get(context)
        if not followers:
            return lower
        discounts, total = self.discounts[len(context) + 1], sum(followers.values())
        taken = sum(discounts[min(count, 3)] for count in followers.values())
        count = followers.get(word, 0)
        return (count - discounts[min(count, 3)] + taken * lower) / total

    def probabilities(self, before: list[int]) -> list[float]:
        """Return p of each word after these."""
        context = tuple(before[max(0, len(before) - self.order + 1) :])
        return [self.probability(context, word) for word in range(self.size)]
