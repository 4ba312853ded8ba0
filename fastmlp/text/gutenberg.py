"""What Project Gutenberg puts around a book: header, licence and the small print of its earlier years."""

import re

__all__ = ["books_of"]

_PG = r"(?:the |this )?(?:copyrighted )?project gutenberg(?:'s|’s|™|\(tm\)|-tm)*"
_LINE = re.IGNORECASE | re.MULTILINE
_REST = r"(?:[^\n*]*(?:\n[^\n*]+){0,2}\*\*\*[^\n]*|[^\n]*)"  # of a mark: its title may have several lines
_START = re.compile(
    rf"^[ \t]*+\**+[ \t]*+(?:start of {_PG}{_REST}"
    r"|end\*? ?\*?the small print!? for (?:public domain|copyright)[^\n]*)\n?",
    _LINE,
)
"""Where a book begins: START OF THE PROJECT GUTENBERG EBOOK (ETEXT), or the end of the small print."""
_END = re.compile(rf"^[ \t]*+\**+[ \t]*+(?:the end of {_PG}[^\n]*|end of {_PG}{_REST})\n?", _LINE)
"""Where a book ends: END OF THE PROJECT GUTENBERG EBOOK, End of Project Gutenberg's Emma, by Jane Austen, ..."""
_HEADER = re.compile(
    rf"^[ \t*]*+(?:this is )?{_PG}(?: (?:presentation )?e-?(?:book|text)(?:,| of\b)| [^\n]*, by )[^\n]*\n", _LINE
)
"""The first line of a file."""
_EMPTY_LINE = re.compile(r"\n\s*\n")
_MENTION = re.compile(r"gutenberg|small print!|newsletter to hear about new", re.IGNORECASE)
_CREDIT = re.compile(
    r"(?:\s*(?:\[?(?:this )?(?:e-?(?:text|book) )?(?:was )?"
    r"(?:produced|prepared|transcribed|scanned|digitized|typed|proofed) (?:and \w+ )?by|transcriber"
    r"|note: project gutenberg)(?:[^\n]+\n)*(?=\s*\n))+",
    re.IGNORECASE,
)
"""The paragraphs that say who made the text, and what other forms of it there are."""
_LONGEST_HEADER = 40_000
"""Characters between two beginnings without an end that can still be a header: the small print has 11,000."""


def books_of(text: str) -> list[str] | None:
    """Return the books of a text without header and licence of Project Gutenberg, in order; None: there are none.

    Text around them is kept, as a book of its own: what stands before a header, and after a licence.
    """
    if "Gutenberg" not in text and "GUTENBERG" not in text:
        return None
    marks = [(*match.span(), True) for match in _START.finditer(text)]
    marks += [(*match.span(), False) for match in _END.finditer(text)]
    marks.sort()
    if not marks:
        return None
    kept: list[str] = []
    place, inside = 0, not marks[0][2]
    for begin, end, starts in marks:
        between = text[place:begin]
        if starts:
            if not inside:
                kept.append(_before_header(between))
            elif (header := _HEADER.search(between)) or len(between) < _LONGEST_HEADER:
                kept.append(between[: header.start()] if header else "")
            else:
                kept.append(between)
        elif inside:
            kept.append(between)
        place, inside = end, starts
        if inside and (credit := _CREDIT.match(text, place)):
            place = credit.end()
    rest = text[place:]
    kept.append(rest if inside else _after_licence(rest))
    return [book.strip("\n") + "\n" for book in kept if book.strip()]


def _before_header(text: str) -> str:
    """Return what stands between a licence, if there is one, and the header of the book that follows."""
    header = _HEADER.search(text)
    if header is None:
        mention = _MENTION.search(text)
        return text[: text.rfind("\n", 0, mention.start()) + 1] if mention else text
    return _after_licence(text[: header.start()])


def _after_licence(text: str) -> str:
    """Return what follows the last paragraph that is about Project Gutenberg."""
    last = max((mention.end() for mention in _MENTION.finditer(text)), default=None)
    if last is None:
        return text
    end = _EMPTY_LINE.search(text, last)
    return text[end.end() :] if end else ""
