// How a text becomes words, and words a text: the rules of fastmlp/text/words.py.

// Apostrophes, hyphens, and joiners without width vanish from a word.
const VANISHING = /['‘’ʼ\-‐‑\u00ad\u200c\u200d\u2060\ufeff]/g;
const NO_WORD = /[^\p{L}\p{N}\p{M}.]+/gu;
const MARKS_BEFORE = /^\p{M}+/u;
// What Python takes for white space; JavaScript's \s has one more and some less.
const SPACE = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/u;

const words = {
  split: (text) => {
    const spaced = text.replaceAll("--", " ").replace(VANISHING, "").replace(NO_WORD, " ").replaceAll(".", " . ");
    return spaced.split(" ").map(wordForm).filter(Boolean);
  },
  attached: ".",
  written: ".",
};

function wordForm(candidate) {
  return candidate.replace(MARKS_BEFORE, "").toLowerCase().normalize("NFC");
}

const whitespace = {
  split: (text) => {
    const found = text.replaceAll("\n", " <eos> ").split(SPACE).filter(Boolean);
    return text.endsWith("\n") ? found.slice(0, -1) : found;
  },
  attached: "<eos>",
  written: "\n",
};

export const TOKENIZERS = { words, whitespace };

// How a text goes on with a word after another; undefined: it is the first.
export function pieceAfter(tokenizer, last, word) {
  if (word === tokenizer.attached) return tokenizer.written;
  const begins = last === undefined || (last === tokenizer.attached && tokenizer.written === "\n");
  return begins ? word : ` ${word}`;
}
