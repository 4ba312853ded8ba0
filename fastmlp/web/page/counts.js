// Counted n-grams for prediction: the back-off model of fastmlp/prediction/ngram.py, as a tree.

// Bytes of seven bits each, the lowest first; all but the last have the eighth bit set.
function readVarints({ at, size }, count, buffer) {
  const bytes = new Uint8Array(buffer, at, size);
  const found = new Uint32Array(count);
  let place = 0;
  for (let i = 0; i < count; i++) {
    let [value, shift] = [0, 0];
    for (; bytes[place] > 127; shift += 7) value |= (bytes[place++] & 127) << shift;
    found[i] = value | (bytes[place++] << shift);
  }
  return found;
}

// Logarithms as fastmlp/web/exported.py rounds them.
function readLogs({ at, size, lowest, step }, buffer) {
  const codes = new Uint16Array(buffer, at, size);
  return Float64Array.from(codes, (code) => Math.exp(lowest + step * code));
}

export class Counts {
  // described: of each length its words, children, probability and backoff; and which weights hold for a known context
  constructor({ levels, bins }, buffer) {
    let parents = 1;
    this.levels = levels.map(({ rows, words, children, probability, backoff }) => {
      const begin = new Uint32Array(parents + 1); // of what each n-gram, one word shorter, goes on with
      const counts = children ? readVarints(children, parents, buffer) : [];
      for (let i = 0; i < counts.length; i++) begin[i + 1] = begin[i] + counts[i];
      parents = rows;
      return {
        begin,
        words: words && readVarints(words, rows, buffer),
        probability: readLogs(probability, buffer),
        backoff: backoff && readLogs(backoff, buffer),
      };
    });
    this.bins = new Uint8Array(buffer, bins.at, bins.size);
  }

  // The number of the n-gram that goes on with a word from the n-gram of this number and length; -1 if not known.
  find(length, number, word) {
    if (length === 0) return word;
    const { begin, words } = this.levels[length];
    let [low, high] = [begin[number], begin[number + 1]];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (words[middle] < word) low = middle + 1;
      else high = middle;
    }
    return low < begin[number + 1] && words[low] === word ? low : -1;
  }

  // The numbers of the last 0, 1, ... words before a place; -1: not known.
  contexts(ids, place) {
    return this.levels.map((_, length) => {
      if (place < length) return -1;
      let number = 0;
      for (let i = 0; i < length && number >= 0; i++) number = this.find(i, number, ids[place - length + i]);
      return number;
    });
  }

  // Fills out (V,) with the probabilities of the word at a place; returns which weights of a mixture hold there.
  probabilities(ids, place, out) {
    const contexts = this.contexts(ids, place);
    let weight = 1;
    const known = [];
    for (let length = this.levels.length - 1; length > 0; length--) {
      if (contexts[length] < 0) continue;
      known.push([length, weight]);
      weight *= this.levels[length - 1].backoff[contexts[length]];
    }
    const [{ probability: single }] = this.levels;
    for (let id = 0; id < out.length; id++) out[id] = single[id] * weight;
    for (const [length, factor] of known.reverse()) {
      const { begin, words, probability } = this.levels[length];
      const context = contexts[length];
      for (let i = begin[context]; i < begin[context + 1]; i++) out[words[i]] = probability[i] * factor;
    }
    const longest = contexts.at(-1);
    return longest < 0 ? 0 : this.bins[longest];
  }
}
