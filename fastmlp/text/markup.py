"""The text of HTML, and of XML for reading: paragraphs without markup, scripts, notes' numbers and page numbers."""

import re
from html.parser import HTMLParser

__all__ = ["decoded_markup", "is_markup", "text_of_markup"]

_BEGINNING = re.compile(
    rb"\s*+(?:<!--(?:[^-]|-(?!->))*+-->\s*+)*+<(?:(?:!doctype\s+html|html|body|\?xml|fictionbook)"
    rb"|(head|title|meta|link|div|table|article|section|center|h[1-6]|p))\b",
    re.IGNORECASE,
)
"""The first tag of a page. With the group it is that of a part of a page, in which some tag is closed."""
_FICTION_BOOK = re.compile(r"\s*<(?:\?xml[^>]*>\s*<)?fictionbook\b", re.IGNORECASE)
_TITLE = re.compile(r"<(/?)title\b", re.IGNORECASE)
_ENCODING = re.compile(rb"(?:charset|encoding)\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
_LEFT_OUT = frozenset(
    ("script", "style", "template", "title", "svg", "iframe", "select", "textarea", "rt", "rp", "binary", "description")
)
"""Not the text of a page; rt and rp are readings beside Japanese, binary and description a FictionBook's."""
_PAGES = frozenset(("pagenum", "pageno", "page-number", "pagebreak", "noteref", "doc-noteref", "doc-pagebreak"))
"""Classes and roles of page numbers and of references to notes."""
_INLINE = frozenset(  # elements that are no paragraphs of their own
    (
        *("a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "emphasis"),
        *("font", "i", "img", "ins", "kbd", "label", "mark", "meter", "nobr", "q", "rb", "ruby", "s", "samp", "small"),
        *("span", "strike", "strong", "sub", "sup", "time", "tt", "u", "v", "var", "wbr"),
    )
)
_NOTE = re.compile(r"\s*[\[({]?\s*(?:\d{1,4}|[*†‡§¶]{1,3})\s*[\])}]?\s*")
_SPACE = re.compile(r"\s+")


def is_markup(head: bytes) -> bool:
    """Whether a file that begins so is HTML or XML."""
    first = _BEGINNING.match(head.removeprefix(b"\xef\xbb\xbf"))
    return first is not None and (first[1] is None or b"</" in head)


def decoded_markup(page: bytes) -> str:
    """Return a page in UTF-8, else in the encoding that it names. Raises UnicodeDecodeError if it is in neither."""
    try:
        return page.decode("utf-8-sig")
    except UnicodeDecodeError:
        if (named := _ENCODING.search(page[:2048])) is None:
            raise
        try:
            return page.decode(named[1].decode("ascii"))
        except (LookupError, UnicodeError):  # no such encoding, or another one
            pass
        raise


def text_of_markup(markup: str) -> str:
    """Return the paragraphs of a page, with an empty line between any two."""
    if _FICTION_BOOK.match(markup):  # whose titles are those of its chapters, made of paragraphs
        markup = _TITLE.sub(r"<\1section", markup)
    parser = _Text()
    parser.feed(markup)
    parser.close()
    return parser.text()


class _Text(HTMLParser):
    """Collects the text of a page.

    parts  of the text; each block begins and ends with two line ends
    out    the element that is being left out, and how many of its kind are open inside of it
    mark   where in `parts` a link or a superscript begins, which may be the number of a note
    plain  how many elements are open whose line ends are kept
    """

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.out, self.depth = "", 0
        self.mark: tuple[str, int] | None = None
        self.plain = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if self.out in ("rt", "rp") and tag in ("rt", "rp", "rb"):  # which need no end
            self.depth = 0
        if self.depth:
            self.depth += tag == self.out
            return
        given = (value or "" for key, value in attributes if key in ("class", "role", "epub:type"))
        classes = set(" ".join(given).split())
        if tag in _LEFT_OUT or (classes & _PAGES and tag in ("span", "a", "sup")):
            self.out, self.depth = tag, 1
            return
        if tag in ("a", "sup"):
            self.mark = self.mark or (tag, len(self.parts))
        elif tag in ("pre", "poem"):
            self.plain += 1
        self._separate(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if not self.depth:
            self._separate(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.depth:
            self.depth = 0 if self.out in ("rt", "rp") and tag == "ruby" else self.depth - (tag == self.out)
            return
        if self.mark is not None and self.mark[0] == tag:
            if _NOTE.fullmatch("".join(self.parts[self.mark[1] :])):
                del self.parts[self.mark[1] :]
            self.mark = None
        if tag in ("pre", "poem"):
            self.plain -= 1
        self._separate("br" if tag == "v" else tag)

    def handle_data(self, data: str) -> None:
        if not self.depth:
            self.parts.append(data if self.plain > 0 else _SPACE.sub(" ", data))

    def _separate(self, tag: str) -> None:
        if tag == "br":
            self.parts.append("\n")
        elif tag in ("td", "th"):
            self.parts.append(" ")
        elif tag not in _INLINE:
            self.parts.append("\n\n")

    def text(self) -> str:
        """The text so far."""
        text = re.sub(r"[^\S\n]*\n[^\S\n]*", "\n", "".join(self.parts))
        return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
