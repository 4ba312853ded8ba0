// The model inside an exported page, asked as the server is: its answers have the same fields.

import { Counts } from "./counts.js";
import { Network } from "./network.js";
import { tokenizerOf } from "./tokenizers.js";

const AT_ONCE = 64; // words between two reports of progress
const SHOWN_UNKNOWN = 8;

export class Inside {
  constructor(described, buffer) {
    this.words = described.words;
    this.unk = this.words.length - 1;
    this.ids = new Map(this.words.map((word, id) => [word, id]));
    this.folded = new Map(this.words.map((word) => [word.toLowerCase(), word]).reverse());
    this.tokenizer = tokenizerOf(described.tokenizer);
    this.padding = this.ids.get(this.tokenizer.sentenceEnd) ?? this.unk;
    this.network = new Network(described, buffer);
    this.counts = described.counts && new Counts(described.counts, buffer);
    this.weights = described.weights; // of network and counts, by how often the context was counted
    this.predictors = this.counts ? ["network", "counts"] : ["network"];
    this.shares = Object.fromEntries(this.predictors.map((name) => [name, new Float64Array(this.words.length)]));
    this.mixed = new Float64Array(this.words.length);
    this.logits = new Float32Array(this.words.length);
  }

  encode(words) {
    return words.map((word) => this.ids.get(word) ?? this.unk);
  }

  // The word; if the vocabulary lacks it, the most frequent one that differs in capitals only.
  inItsCase(word) {
    return this.ids.has(word) ? word : (this.folded.get(word.toLowerCase()) ?? word);
  }

  // The words of a text that goes on: then its last line end is a word too, where line ends are words.
  wordsBefore(text) {
    const split = /\n[ \t]*$/.test(text) ? this.tokenizer.split(`${text}X`).slice(0, -1) : this.tokenizer.split(text);
    return split.map((word) => this.inItsCase(word));
  }

  // Fills mixed (V,) with the probabilities of the word at a place, and shares with each predictor's part of them.
  predict(ids, place, predictors) {
    const names = predictors?.length ? this.predictors.filter((name) => predictors.includes(name)) : this.predictors;
    let bin = 0;
    if (names.includes("counts")) bin = this.counts.probabilities(ids, place, this.shares.counts);
    if (names.includes("network")) {
      softmax(this.network.logits(ids, place, this.padding, this.logits), this.shares.network);
    }
    this.mixed.fill(0);
    names.forEach((name, i) => {
      const weight = names.length > 1 ? this.weights[bin][i] : 1;
      const share = this.shares[name];
      for (let id = 0; id < share.length; id++) this.mixed[id] += share[id] *= weight;
    });
    return names;
  }

  next({ text, place = null, predictors, count, temperature = 1, top_k: topK, top_p: topP }) {
    const words = place === null ? this.wordsBefore(text) : this.tokenizer.split(text).slice(0, place);
    const names = this.predict(this.encode(words), words.length, predictors);
    const joiner = this.tokenizer.joiner();
    for (const word of words) joiner.add(word);
    const probabilities = scaled(this.mixed, this.excluded(joiner), temperature);
    const size = probabilities.length;
    const limited = topK || topP ? likeliest(probabilities, topK || size, topP || 1) : [...probabilities.keys()];
    const total = limited.reduce((sum, id) => sum + probabilities[id], 0);
    const piece = (id) => joiner.copy().add(this.words[id]);
    const likely = limited.length < size ? limited.slice(0, count) : likeliest(probabilities, count, 1);
    const shown = likely.filter((id) => probabilities[id] > 0);
    const unknown = [...new Set(words)].filter((word) => !this.ids.has(word));
    return {
      words: shown.map((id) => ({
        word: this.words[id],
        piece: piece(id),
        probability: probabilities[id] / total,
        shares: Object.fromEntries(names.map((name) => [name, this.shares[name][id] / this.mixed[id]])),
      })),
      drawn: piece(drawn(limited, probabilities, total)),
      unknown: unknown.slice(0, SHOWN_UNKNOWN),
    };
  }

  // The ids that may not come next: <unk>, and what the text so far excludes, unless that is the whole vocabulary.
  excluded(joiner) {
    const found = new Set(joiner.excluded().map((word) => this.ids.get(word) ?? this.unk));
    found.add(this.unk);
    return found.size < this.words.length ? found : new Set([this.unk]);
  }

  // progress(done, all) is called now and then
  surprise({ text, predictors }, progress) {
    const words = this.tokenizer.split(text);
    const ids = this.encode(words);
    const joiner = this.tokenizer.joiner();
    let nats = 0;
    let known = 0;
    const found = words.map((word, place) => {
      if (place % AT_ONCE === 0) progress(place, words.length);
      this.predict(ids, place, predictors);
      const surprise = -Math.log(this.mixed[ids[place]]);
      const isKnown = this.ids.has(word);
      if (isKnown) {
        nats += surprise;
        known++;
      }
      return [joiner.add(word), surprise / Math.LN2, isKnown];
    });
    return { words: found, perplexity: known ? Math.exp(nats / known) : null, unknown: words.length - known };
  }
}

function softmax(logits, out) {
  let highest = -Infinity;
  for (let id = 0; id < logits.length; id++) if (logits[id] > highest) highest = logits[id];
  let sum = 0;
  for (let id = 0; id < logits.length; id++) sum += out[id] = Math.exp(logits[id] - highest);
  for (let id = 0; id < logits.length; id++) out[id] /= sum;
}

// The probabilities at a temperature, up to a factor; 0 for words that may not come.
function scaled(probabilities, excluded, temperature) {
  const possible = probabilities.slice();
  for (const id of excluded) possible[id] = 0;
  const highest = possible.reduce((one, other) => Math.max(one, other), 0);
  if (temperature === 0) {
    const likeliestId = possible.indexOf(highest);
    return possible.map((_, id) => (id === likeliestId ? 1 : 0));
  }
  return possible.map((probability) => (probability / highest) ** (1 / temperature));
}

// The ids of the `count` likeliest words, or of fewer that together have `share` of all, as in prediction/generation.py.
function likeliest(probabilities, count, share) {
  const size = probabilities.length;
  const total = probabilities.reduce((sum, p) => sum + p, 0);
  let least = ((1 - share) * total) / size; // words below it together have less than 1 - share
  if (count < size) least = Math.max(least, probabilities.slice().sort()[size - count]);
  const ids = [...probabilities.keys()].filter((id) => probabilities[id] >= least);
  ids.sort((one, other) => probabilities[other] - probabilities[one] || one - other);
  let [sum, enough] = [0, 0];
  while (enough < ids.length && sum < share * total) sum += probabilities[ids[enough++]];
  return ids.slice(0, Math.min(count, Math.max(1, enough)));
}

function drawn(ids, probabilities, total) {
  let rest = Math.random() * total;
  for (const id of ids) {
    rest -= probabilities[id];
    if (rest < 0) return id;
  }
  return ids[0];
}
