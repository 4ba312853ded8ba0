// How a text becomes words, and words a text: the rules of fastmlp/text/words.py.

import {
  APOSTROPHES,
  Characters,
  isAscii,
  isInvisible,
  isSpace,
  JOINERS,
  mendedApostrophes,
  splitAtSpace,
  visible,
} from "./characters.js";
import { Prose } from "./prose.js";

// A tokenizer has split(text), sentenceEnd, and joiner(): add(word) is how the text goes on with a word, excluded() the
// words that may not come next, copy() another at the same place.
export function tokenizerOf(described) {
  return new { words: Words, whitespace: Whitespace, ids: Ids, prose: Prose }[described.name](described);
}

// Joins words by single spaces, letters of scripts without spaces by none; attaches one to the word before it.
class Spaced {
  constructor(attached, written, isSpaceless = () => false) {
    Object.assign(this, { attached, written, isSpaceless, space: "", lastIsSpaceless: false });
  }

  add(word) {
    if (word === this.attached) {
      this.space = isSpace(this.written) ? "" : " ";
      return this.written;
    }
    const spaceless = this.isSpaceless(String.fromCodePoint(word.codePointAt(0)));
    const piece = spaceless && this.lastIsSpaceless ? word : this.space + word;
    this.space = " ";
    this.lastIsSpaceless = spaceless;
    return piece;
  }

  excluded() {
    return [];
  }

  copy() {
    return Object.assign(Object.create(Spaced.prototype), this);
  }
}

// What vanishes from a word: in rules 1 four apostrophes, hyphens, and what has no width.
const VANISHING_1 = new Set("'\u2018\u2019\u02bc-\u2010\u2011\u00ad\u200c\u200d\u2060\ufeff");
const VANISHING = new Set(`${APOSTROPHES}-\u2010\u2011${JOINERS}\u0640`);
const STOPS = new Set(".\u3002\uff61\u06d4\u0964\u0965\u17d4\u104b");
const SPACE_WITHOUT_WIDTH = "\u200b";
const OF_WORD = /^[\p{L}\p{N}\p{M}.]$/u;
const ALPHANUMERIC = /[\p{L}\p{N}]/u;

class Words {
  constructor({ rules, characters }) {
    this.rules = rules;
    this.sentenceEnd = ".";
    this.characters = new Characters(characters);
  }

  split(text) {
    const spaced = (this.rules > 1 ? mendedApostrophes(text) : text).replaceAll("--", " ");
    const plain =
      this.rules > 1 ? this.characters.translate(spaced, (character) => this.role(character)) : roles1(spaced);
    const candidates = this.characters.apart(plain.replaceAll("'", "").replaceAll(".", " . ")).split(" ");
    return candidates.filter(Boolean).map(wordForm).filter(Boolean);
  }

  role(character) {
    if (VANISHING.has(character) || (isInvisible(character) && character !== SPACE_WITHOUT_WIDTH)) return "'";
    if (STOPS.has(character)) return ".";
    return this.characters.isOfSpacelessScript(character) ? `\0${character}` : role1(character);
  }

  joiner() {
    return new Spaced(".", ".", (letter) => this.rules > 1 && this.characters.isOfSpacelessScript(letter));
  }
}

const roles1 = (text) => Array.from(text, role1).join("");

function role1(character) {
  if (VANISHING_1.has(character)) return "'";
  return OF_WORD.test(character) ? character : " ";
}

function wordForm(candidate) {
  if (isAscii(candidate)) return candidate.toLowerCase();
  const first = candidate.search(ALPHANUMERIC); // marks before it belong to no word
  return first < 0 ? "" : candidate.slice(first).toLowerCase().normalize("NFC");
}

class Whitespace {
  constructor({ rules }) {
    this.rules = rules;
    this.sentenceEnd = "<eos>";
  }

  split(text) {
    const found = splitAtSpace(text.replaceAll("\n", " <eos> "));
    const words = text.endsWith("\n") ? found.slice(0, -1) : found;
    return this.rules > 1 ? words.map(visible).filter(Boolean) : words;
  }

  joiner() {
    return new Spaced("<eos>", "\n");
  }
}

// Numbers in place of words.
class Ids {
  constructor() {
    this.sentenceEnd = "<unk>";
  }

  split(text) {
    return splitAtSpace(text);
  }

  joiner() {
    return new Spaced(null, "");
  }
}
