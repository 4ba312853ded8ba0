"""From files to words and from words to ids: reading text, the tokenizers and the vocabulary.

    text = read_text(["hp.txt"])
    tokenizer = get_tokenizer("words")
    words = tokenizer.split(text.text)
    vocabulary = Vocabulary.from_words(words)
    ids = vocabulary.encode(words)

Text that cannot be used raises TextError, whose message is one line that says what to do.

Memory, for N bytes of text: reading takes up to 3 N for ASCII, up to 9 N otherwise (the bytes, the decoded
text at up to 4 bytes a character, a copy of that if line ends are converted or files joined); the list of words takes
8 bytes a word, and each different word once; splitting text without white space 20 N more, by the `prose` rule
3 N more, or 15 N where it has no blank lines. Of HTML, FB2 and EPUB with N bytes unpacked, reading takes up to 48 N.
"""

from fastmlp.errors import TextError
from fastmlp.text.reading import Text, TextFile, read_text, text_in_memory
from fastmlp.text.standard_library import standard_library_text
from fastmlp.text.tokenizer import Joiner, Tokenizer
from fastmlp.text.vocabulary import UNK, Vocabulary, is_word
from fastmlp.text.words import IDS, TOKENIZERS, get_tokenizer

__all__ = [
    "IDS",
    "TOKENIZERS",
    "UNK",
    "Joiner",
    "Text",
    "TextError",
    "TextFile",
    "Tokenizer",
    "Vocabulary",
    "get_tokenizer",
    "is_word",
    "read_text",
    "standard_library_text",
    "text_in_memory",
]
