// The model inside an exported page, asked as the server is: its answers have the same fields.

import { Network } from "./network.js";
import { pieceAfter, TOKENIZERS } from "./tokenizers.js";

const AT_ONCE = 64; // words between two reports of progress
const SHOWN_UNKNOWN = 8;

export class Inside {
  constructor(described, buffer) {
    this.words = described.words;
    this.ids = new Map(this.words.map((word, id) => [word, id]));
    this.tokenizer = TOKENIZERS[described.tokenizer];
    this.padding = this.ids.get(this.tokenizer.attached) ?? this.words.length - 1;
    this.network = new Network(described, buffer);
    this.logits = new Float32Array(this.words.length);
  }

  encode(words) {
    return words.map((word) => this.ids.get(word) ?? this.words.length - 1);
  }

  next({ text, place, count, temperature = 1, top_k: topK, top_p: topP }) {
    const words = this.tokenizer.split(text).slice(0, place);
    const logits = this.network.logits(this.encode(words), words.length, this.padding, this.logits);
    logits[logits.length - 1] = -Infinity; // <unk> is never written
    const probabilities = scaled(logits, temperature);
    const size = probabilities.length;
    const limited = topK || topP ? likeliest(probabilities, topK || size, topP || 1) : [...probabilities.keys()];
    const total = limited.reduce((sum, id) => sum + probabilities[id], 0);
    const piece = (id) => pieceAfter(this.tokenizer, words.at(-1), this.words[id]);
    const likely = limited.length < size ? limited.slice(0, count) : likeliest(probabilities, count, 1);
    const shown = likely.filter((id) => probabilities[id] > 0);
    const unknown = [...new Set(words)].filter((word) => !this.ids.has(word));
    return {
      words: shown.map((id) => ({
        word: this.words[id],
        piece: piece(id),
        probability: probabilities[id] / total,
        shares: { network: 1 },
      })),
      drawn: piece(drawn(limited, probabilities, total)),
      unknown: unknown.slice(0, SHOWN_UNKNOWN),
    };
  }

  // progress(done, all) is called now and then
  surprise({ text }, progress) {
    const words = this.tokenizer.split(text);
    const ids = this.encode(words);
    let nats = 0;
    let known = 0;
    const found = words.map((word, place) => {
      if (place % AT_ONCE === 0) progress(place, words.length);
      const surprise = this.surpriseAt(ids, place);
      const isKnown = this.ids.has(word);
      if (isKnown) {
        nats += surprise;
        known++;
      }
      return [pieceAfter(this.tokenizer, words[place - 1], word), surprise / Math.LN2, isKnown];
    });
    return { words: found, perplexity: known ? Math.exp(nats / known) : null, unknown: words.length - known };
  }

  // The loss of the word at a place in nats.
  surpriseAt(ids, place) {
    const logits = this.network.logits(ids, place, this.padding, this.logits);
    let highest = -Infinity;
    for (let id = 0; id < logits.length; id++) if (logits[id] > highest) highest = logits[id];
    let sum = 0;
    for (let id = 0; id < logits.length; id++) sum += Math.exp(logits[id] - highest);
    return Math.log(sum) + highest - logits[ids[place]];
  }
}

// The probabilities at a temperature, up to a factor.
function scaled(logits, temperature) {
  const highest = logits.reduce((one, other) => Math.max(one, other), -Infinity);
  if (temperature === 0) {
    const likeliestId = logits.indexOf(highest);
    return logits.map((_, id) => (id === likeliestId ? 1 : 0));
  }
  return logits.map((logit) => Math.exp((logit - highest) / temperature));
}

// The ids of the `count` likeliest words, or of fewer that together have `share` of all, as in prediction/generation.py.
function likeliest(probabilities, count, share) {
  const size = probabilities.length;
  const total = probabilities.reduce((sum, p) => sum + p, 0);
  let least = ((1 - share) * total) / size; // words below it together have less than 1 - share
  if (count < size) least = Math.max(least, probabilities.slice().sort()[size - count]);
  const ids = [...probabilities.keys()].filter((id) => probabilities[id] >= least);
  ids.sort((one, other) => probabilities[other] - probabilities[one] || one - other);
  let sum = 0;
  const enough = ids.findIndex((id) => (sum += probabilities[id]) >= share * total);
  return ids.slice(0, Math.min(count, enough < 0 ? size : enough + 1));
}

function drawn(ids, probabilities, total) {
  let rest = Math.random() * total;
  return ids.find((id) => (rest -= probabilities[id]) < 0) ?? ids[0];
}
