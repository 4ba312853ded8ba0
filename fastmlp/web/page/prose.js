// Splits a novel into words, punctuation and paragraphs, and prints them as a page again: fastmlp/text/prose.py.

import {
  APOSTROPHES,
  Characters,
  characterBefore,
  isAscii,
  isInvisible,
  isLetter,
  isSpace,
  mendedApostrophes,
  SPACE,
  splitAtSpace,
  WORD,
  withoutJoiners,
} from "./characters.js";

const PARAGRAPH = "<p>";
const PAIRS = new Map(
  Object.entries({ "“": "”", "‘": "’", "«": "»", "‹": "›", "(": ")", "[": "]", "{": "}", "<": ">" }),
);
const CLOSING = new Set(PAIRS.values());
const MARKS = new Set([...PAIRS.keys(), ...CLOSING]);
const STOPS_OF_PROSE = new Set(",;:.!?…");
const DASH = "—";
const APOSTROPHE = "’";
const LONE = "'"; // the word of an apostrophe that belongs to no word and closes no quotation
const NOT_WORDS = new Set([...MARKS, ...STOPS_OF_PROSE, DASH, LONE, PARAGRAPH, ""]);
const GAP = new RegExp(`\\n(?:(?!\\n)[${SPACE}])*\\n`, "u");

export class Prose {
  constructor({ rules, characters, capitalized }) {
    this.rules = rules;
    this.sentenceEnd = PARAGRAPH;
    this.characters = new Characters(characters);
    this.capitalized = new Set(capitalized);
  }

  split(text) {
    const words = this.candidates(text).map((candidate) => candidate.normalize("NFC"));
    abbreviate(words);
    const found = words.filter(Boolean).slice(1); // no <p> before the first paragraph
    lowerBeginnings(found, this.capitalized);
    return found;
  }

  candidates(text) {
    const plain = marked(this.rules > 1 ? this.plain(text) : plain1(text));
    const paragraphs = plain.split(GAP).map(classifyQuotes);
    const written = paragraphs.filter((paragraph) => paragraph && !isSpace(paragraph));
    let piece = written.join(` ${PARAGRAPH} `).replaceAll("\0", " ");
    piece = piece.replace(/[;!?…()[\]{}]/g, " $& ");
    for (const [pattern, mark] of NOT_IN_NUMBERS) piece = piece.replace(pattern, ` ${mark} `);
    const words = splitAtSpace(piece);
    return words.length ? [PARAGRAPH, ...words] : [];
  }

  // One spelling for each mark; spaces around letters of scripts without spaces.
  plain(text) {
    const mended = mendedApostrophes(text);
    if (isAscii(mended)) return mended;
    const spelled = this.characters.translate(mended, (character) => this.spelling(character));
    return this.characters.apart(withoutJoiners(spelled)).replace(EN_DASH, "--");
  }

  spelling(character) {
    if (AS_APOSTROPHE.has(character)) return APOSTROPHE;
    if (OPEN_OR_APOSTROPHE.has(character)) return "‘";
    if (character === "\u0640" || isInvisible(character)) return "";
    if (SPACELESS_MARKS.has(character)) return ` ${character} `;
    return this.characters.isOfSpacelessScript(character) ? `\0${character}` : (SPELLINGS.get(character) ?? character);
  }

  joiner() {
    return new ProseJoiner(this);
  }
}

// ------------------------------------------------------------------ one way to write a thing

const SPELLINGS = new Map([
  ...Array.from("\u00ad\u200b\u2060\ufeff", (character) => [character, ""]),
  ...Array.from("\u2010\u2011", (character) => [character, "-"]),
  ...Array.from("\u2012\u2014\u2015", (character) => [character, "--"]),
  ...Array.from("„‟", (character) => [character, "“"]),
  ["‚", "‘"],
  ["\u02bc", APOSTROPHE],
  ["\u2e3a", "----"],
  ["\u037e", ";"],
]);
const EN_DASH = /–(?:(?!\p{Nd})|(?<!\p{Nd}–))/gu;
const NOT_IN_NUMBERS = [
  [/,(?:(?!\p{Nd})|(?<!\p{Nd},))/gu, ","],
  [/:(?:(?!\p{Nd})|(?<!\p{Nd}:))/gu, ":"],
  [new RegExp(`\\.(?![${WORD}])`, "gu"), "."],
];
const SPACELESS_MARKS = new Set("\u3001\u3002\u30fb");
for (let code = 0x3008; code < 0x3020; code++) {
  if (code !== 0x3012 && code !== 0x3013) SPACELESS_MARKS.add(String.fromCharCode(code));
}
const OPEN_OR_APOSTROPHE = new Set("‘\u02bb\u201b\x91");
const AS_APOSTROPHE = new Set(APOSTROPHES);
for (const character of [...OPEN_OR_APOSTROPHE, "'", "\u05f4"]) AS_APOSTROPHE.delete(character);

function plain1(text) {
  return Array.from(text, (character) => SPELLINGS.get(character) ?? character)
    .join("")
    .replace(EN_DASH, "--");
}

function marked(text) {
  return text
    .replace(/_+/g, (match, place) => {
      const after = String.fromCodePoint(text.codePointAt(place + match.length) ?? 32);
      return isLetter(characterBefore(text, place)) && isLetter(after) ? match : "";
    })
    .replace(/--+/g, (match) => (match.length < 4 ? ` ${DASH} ` : DASH + DASH))
    .replace(/\.{2,}/g, "…")
    .replace(/[<>]/g, " $& ");
}

// ------------------------------------------------------------------ quotation marks

const QUOTES = /["“”«»‹›'‘’]+/y;
const DOUBLE = { '"': "“", "“": "“", "”": "“", "«": "«", "»": "«", "‹": "‹", "›": "‹" };
const BEFORE_CLOSING = new Set([...STOPS_OF_PROSE, ...CLOSING]);
BEFORE_CLOSING.delete(APOSTROPHE);
const AROUND_WORDS = new Set([...MARKS, ...STOPS_OF_PROSE, '"', LONE, ""]);
const ELIDED = new RegExp(
  `(?:tis|twas|twere|twill|twould|twixt|em|ee|cause|bout|neath|gainst|mongst)(?![${WORD}])`,
  "iuy",
);
const CLOSES = new RegExp(`[^${SPACE}]['’](?![${WORD}])`, "u");
const LONGEST_QUOTATION = 2000; // characters within which a quotation opened by ' must close

// Each quotation mark as a word, with spaces around it, or as an apostrophe without.
function classifyQuotes(text) {
  const open = new Set();
  let end = -1; // of the mark before
  let mark = "";
  let runEnd = 0; // of the last run of adjacent marks

  const starts = (before) => !before || isSpace(before) || PAIRS.has(before);

  // Whether no word begins at a place, after any quotation marks.
  function ends(place) {
    let at = place;
    if (at >= runEnd) {
      QUOTES.lastIndex = at;
      if (QUOTES.test(text)) runEnd = QUOTES.lastIndex;
    }
    at = Math.max(at, runEnd);
    const after = text.slice(at, at + 1);
    return !after || isSpace(after) || CLOSING.has(after) || STOPS_OF_PROSE.has(after);
  }

  function double(quote, before, place) {
    const opening = DOUBLE[quote];
    let opens = starts(before);
    if (opens === ends(place)) opens = quote === opening || (quote === '"' && !open.has(opening));
    return opens ? opening : PAIRS.get(opening);
  }

  function single(quote, before, place) {
    const ofWord = isBesideWord(before);
    const beforeWord = isBesideWord(text.slice(place, place + 1));
    if (ofWord && beforeWord) return "";
    if (quote === "‘" && (starts(before) || !ends(place))) return "‘";
    if (quote === "'" && starts(before) && beginsQuotation(place)) return "‘";
    if (beforeWord) return "";
    if (open.has("‘") || BEFORE_CLOSING.has(before)) return "’";
    return ofWord ? "" : LONE;
  }

  function beginsQuotation(place) {
    const word = place + (['"', "“"].includes(text[place]) ? 1 : 0);
    if (open.has("‘") || !isBesideWord(text.slice(word, word + 1))) return false;
    ELIDED.lastIndex = word;
    return !ELIDED.test(text) && CLOSES.test(text.slice(word, word + LONGEST_QUOTATION));
  }

  return text.replace(/["“”«»‹›'‘’]/g, (quote, place) => {
    const before = place === end ? mark : characterBefore(text, place);
    const found = (quote in DOUBLE ? double : single)(quote, before, place + 1);
    mark = found || APOSTROPHE;
    end = place + 1;
    if (PAIRS.has(found)) open.add(found);
    else if (CLOSING.has(found)) {
      for (const opening of open) if (PAIRS.get(opening) === found || opening === "‘") open.delete(opening);
    }
    return found ? ` ${found} ` : APOSTROPHE;
  });
}

const isBesideWord = (character) => !isSpace(character) && !AROUND_WORDS.has(character);

// ------------------------------------------------------------------ full stops and capitals

const TITLES = new Set("Mr Mrs Ms Messrs Dr Rev St Esq Hon Prof Capt Col Gen Lieut Jr Sr".split(" "));
const CONTINUING = new Set(",;:!?");

// Attach the full stops of abbreviations to the words before them, and leave "" in their place.
function abbreviate(words) {
  const stops = [...words.keys()].filter((at) => words[at] === ".");
  for (const at of stops) {
    const before = words[at - 1] ?? "";
    const after = words[at + 1] ?? "";
    if (!NOT_WORDS.has(before) && (CONTINUING.has(after) || isLower(after) || isAbbreviated(before))) {
      words[at - 1] = `${before}.`;
      words[at] = "";
    }
  }
}

// Lower-case the words that certainly begin a sentence, except those in `capitalized`.
function lowerBeginnings(words, capitalized) {
  const begins = [0];
  for (const [at, word] of words.entries()) if (word === "." || word === PARAGRAPH) begins.push(at + 1);
  for (let at of begins) {
    while (at < words.length && MARKS.has(words[at])) at++;
    if (at < words.length && !capitalized.has(words[at])) words[at] = lower(words[at]);
  }
}

function isAbbreviated(word) {
  if ([...word].length > 1) return TITLES.has(upper(word));
  return !"Ii".includes(word) && word.toUpperCase() !== word.toLowerCase();
}

const withoutApostrophe = (word) => (word.startsWith(APOSTROPHE) ? word.slice(1) : word);
const isLower = (word) => /^\p{Lowercase}/u.test(withoutApostrophe(word));
const toLower = (text) => text.toLowerCase();
const toUpper = (text) => text.toUpperCase();
const lower = (word) => changed(word, toLower, toUpper);
const upper = (word) => changed(word, toUpper, toLower);

// A word with its first letter changed, if that is reversible and no other letter is a capital.
function changed(word, change, back) {
  const [first = "", ...others] = withoutApostrophe(word);
  const rest = others.join("");
  const apostrophe = word.slice(0, word.length - first.length - rest.length);
  const other = change(first);
  const result = apostrophe + other + rest;
  const reversible = [...other].length === 1 && back(other) === first && result.normalize("NFC") === result;
  return reversible && rest === rest.toLowerCase() ? result : word;
}

// ------------------------------------------------------------------ back to text

class ProseJoiner {
  constructor(tokenizer) {
    this.tokenizer = tokenizer;
    this.beginParagraph();
  }

  beginParagraph() {
    this.last = ""; // the word before; "" at the beginning of a paragraph
    this.begins = true; // whether the next word certainly begins a sentence
    this.open = []; // the marks of this paragraph that are open, the innermost last
  }

  add(word) {
    if (word === PARAGRAPH) {
      const piece = this.last ? "\n\n" : "";
      this.beginParagraph();
      return piece;
    }
    const capital = this.begins && !this.tokenizer.capitalized.has(upper(word));
    const piece = this.space(word) + (capital ? upper(word) : word);
    this.last = word;
    if (PAIRS.has(word)) this.open = [...this.open, word];
    else if (CLOSING.has(word)) this.close(word);
    else this.begins = word === ".";
    return piece;
  }

  close(mark) {
    const depth = this.open.findIndex((opening) => PAIRS.get(opening) === mark);
    if (depth >= 0) this.open = this.open.slice(0, depth);
  }

  space(word) {
    const { last } = this;
    if (!last) return "";
    const end = characterBefore(last, last.length);
    const begin = String.fromCodePoint(word.codePointAt(0));
    if (("-—".includes(end) && "-—".includes(begin)) || (end === "." && begin === ".")) return " ";
    const tight =
      PAIRS.has(last) ||
      last === DASH ||
      word === DASH ||
      CLOSING.has(word) ||
      STOPS_OF_PROSE.has(word) ||
      (this.tokenizer.rules > 1 && (this.standsClose(end) || this.standsClose(begin)));
    return tight ? "" : " ";
  }

  standsClose(character) {
    return SPACELESS_MARKS.has(character) || this.tokenizer.characters.isOfSpacelessScript(character);
  }

  excluded() {
    const innermost = this.open.at(-1);
    const mayClose = innermost && !PAIRS.has(this.last) ? PAIRS.get(innermost) : null;
    const closing = [...CLOSING].filter((mark) => mark !== mayClose);
    return [...closing, ...this.open, ...(this.open.length || !this.last ? [PARAGRAPH] : [])];
  }

  copy() {
    return Object.assign(Object.create(ProseJoiner.prototype), this);
  }
}
