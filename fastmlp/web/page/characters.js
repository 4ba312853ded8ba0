// What a character is to the tokenizers: the rules of fastmlp/text/characters.py, whose names these are.

export const WORD = "\\p{L}\\p{N}_"; // what is \w to Python, inside of brackets
// What Python takes for white space; JavaScript's \s has one more and some less.
export const SPACE = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const SPACES = new RegExp(`[${SPACE}]+`, "u");
const ONLY_SPACE = new RegExp(`^[${SPACE}]+$`, "u");
const LETTER = /\p{L}/u;

export const splitAtSpace = (text) => text.split(SPACES).filter(Boolean);
export const isSpace = (text) => ONLY_SPACE.test(text);
export const isLetter = (character) => LETTER.test(character);
export const isAscii = (text) => !/[^\0-\x7f]/.test(text);

// The character that ends before a place in a text; "" at its beginning.
export function characterBefore(text, place) {
  const low = text.charCodeAt(place - 1);
  return text.slice(low >= 0xdc00 && low < 0xe000 ? place - 2 : Math.max(0, place - 1), place);
}

// ------------------------------------------------------------------ apostrophes in words

export const APOSTROPHES = "'\u2018\u2019\u02bc\u02b9\u02bb\u02bd\u201b\ua78b\ua78c\uff07\u055a\u05f3\u05f4\x91\x92";
export const JOINERS = "\u200c\u200d";
const ENTITY = /&(?:#(?:39|146|8217)|#[xX](?:27|2019)|apos|rsquo);/g;
const BETWEEN_LETTERS = /(?<=[\p{L}\p{Nl}\p{No}])[`\u00b4\u2032](?=[\p{L}\p{Nl}\p{No}])/gu;
const GERSHAYIM = /(?<=[\u05d0-\u05ea])"(?=[\u05d0-\u05ea])/g;

export function mendedApostrophes(text) {
  return text.replace(ENTITY, "\u2019").replace(BETWEEN_LETTERS, apostropheOrQuote).replace(GERSHAYIM, "\u05f4");
}

// Inside of a word that the same mark quotes it stays: `int`s.
function apostropheOrQuote(mark, place, text) {
  let character = characterBefore(text, place);
  while (isLetter(character)) {
    place -= character.length;
    character = characterBefore(text, place);
  }
  return character === mark ? mark : "\u2019";
}

// ------------------------------------------------------------------ invisible characters

const INVISIBLE =
  "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164" +
  "\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\\u{1bca0}-\\u{1bca3}\\u{1d173}-\\u{1d17a}\\u{e0000}-\\u{e0fff}";
const IS_INVISIBLE = new RegExp(`^[${INVISIBLE}]$`, "u");
const ALL_INVISIBLE = new RegExp(`[${INVISIBLE}]`, "gu");
const JOINS_NOTHING = new RegExp(`(?<![\u0600-\u0dff])[${JOINERS}]+|[${JOINERS}]+(?![${WORD}])`, "gu");

export const isInvisible = (character) => IS_INVISIBLE.test(character);
export const withoutJoiners = (text) => text.replace(JOINS_NOTHING, "");
export const visible = (text) => withoutJoiners(text.replace(ALL_INVISIBLE, ""));

// ------------------------------------------------------------------ forms of letters, scripts without spaces

// What Python says of characters: `forms` and `spaceless` are ranges, first and last in turn; `following` are marks.
export class Characters {
  constructor({ forms, spaceless, following }) {
    this.forms = forms;
    this.spaceless = spaceless;
    this.cluster = new RegExp(`\0(.[${following}]*(?:(?<=[\u1039\u17d2])\0.[${following}]*)*)`, "gu");
  }

  plainForm(character) {
    return character.normalize(isIn(this.forms, character) ? "NFKC" : "NFC");
  }

  isOfSpacelessScript(character) {
    return isIn(this.spaceless, character);
  }

  // Spaces around each letter that has a NUL before it, and the marks that follow the letter.
  apart(text) {
    return text.replace(this.cluster, (match, letters, place) => {
      const before = "“‘".includes(text[place - 1] ?? " ") ? "\0" : " ";
      const after = "”’".includes(text[place + match.length] ?? " ") ? "\0" : " ";
      return before + letters.replaceAll("\0", "") + after;
    });
  }

  // The text with a spelling for each character; spellingOf(character of the plain form).
  translate(text, spellingOf) {
    const known = new Map();
    let found = "";
    for (const character of text) {
      if (!known.has(character)) {
        known.set(character, [...this.plainForm(character)].map(spellingOf).join(""));
      }
      found += known.get(character);
    }
    return found;
  }
}

function isIn(ranges, character) {
  if (character < "\x80") return false;
  const code = character.codePointAt(0);
  let [low, high] = [0, ranges.length]; // the number of bounds up to the code is between
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ranges[middle] <= code) low = middle + 1;
    else high = middle;
  }
  return low % 2 === 1 || ranges[low - 1] === code;
}
