"""The texts that a network writes while it is trained."""

from fastmlp.config import TrainConfig
from fastmlp.data.corpus import Corpus
from fastmlp.events import Reporter, Sampled
from fastmlp.options import TEMPERATURE
from fastmlp.prediction.generation import complete, describe_unknown_words, random_numbers, words_of_prompt
from fastmlp.prediction.neural import NeuralModel
from fastmlp.training.keeper import Keeper
from fastmlp.training.progress import Progress

__all__ = ["Samples"]

SAMPLE_WORDS = 30
SAMPLE_STREAM = 1_000  # of the seed's random numbers: those below initialise the weights


class Samples:
    """Completions of the same prompts with the same random numbers, so that they show what was learned in between.

    prompts  the words of each prompt, by its text
    """

    def __init__(
        self, config: TrainConfig, corpus: Corpus, model: NeuralModel, keeper: Keeper, reporter: Reporter
    ) -> None:
        self._keeper, self._reporter = keeper, reporter
        given = [words_of_prompt(model, prompt) for prompt in config.prompt] or [corpus.default_prompt()]
        self._seed, self._join = config.seed, corpus.tokenizer.join
        self._temperature = TEMPERATURE if config.window else 1.0  # the original's samples are what they were
        self.prompts = {self._join(words): words for words in given}

    def texts(self, model: NeuralModel) -> dict[str, str]:
        """What the model writes after each prompt, by prompt."""
        texts = {}
        for number, (prompt, words) in enumerate(self.prompts.items()):
            rng = random_numbers(self._seed, SAMPLE_STREAM + number)
            written = complete(model, words, SAMPLE_WORDS, rng, temperature=self._temperature)
            texts[prompt] = self._join([*words, *written])
        return texts

    def write(self, texts: dict[str, str], progress: Progress, *, at_end: bool = False) -> dict[str, str]:
        """Keep and report the texts, and return them; those at the end beside those of before training."""
        step = progress.step
        self._keeper.write_samples("".join(f"step {step:,}\n{text}\n\n" for text in texts.values()))
        for prompt, text in texts.items():
            before, best_step = (progress.before.get(prompt), progress.best_step) if at_end else (None, None)
            self._reporter.report(Sampled(step, prompt, text, before, best_step))
        return texts

    def unknown_words(self, model: NeuralModel) -> str | None:
        """One line on the prompts' words that the vocabulary lacks; None where it has them all."""
        return describe_unknown_words(model, [word for words in self.prompts.values() for word in words])
