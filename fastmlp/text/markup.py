"""The text of HTML, and of XML for reading: paragraphs without markup, scripts, notes' numbers and page numbers."""

import re
from html import unescape

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
_CLASSES = ("class", "role", "epub:type")
_INLINE = frozenset(  # elements that are no paragraphs of their own
    (
        *("a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "emphasis"),
        *("font", "i", "img", "ins", "kbd", "label", "mark", "meter", "nobr", "q", "rb", "ruby", "s", "samp", "small"),
        *("span", "strike", "strong", "sub", "sup", "time", "tt", "u", "v", "var", "wbr"),
    )
)
_NOTE = re.compile(r"\s*+[\[({]?\s*+(?:\d{1,4}|[*†‡§¶]{1,3})\s*+[\])}]?\s*+")
_SPACE = re.compile(r"\s+")
_NAME = r"[a-zA-Z][^\t\n\r\f />\0]*+"
_ATTRIBUTE = r"""[\s/]*+(?{}[^\s/>][^\s/=>]*+)(?:\s*+=+\s*+(?{}'[^']*+'|"[^"]*+"|[^>\s]*+))?+"""
_START_TAG = re.compile(rf"<({_NAME})((?:{_ATTRIBUTE.format(':', ':')})*+)([\s/]*+)>")
_END_TAG = re.compile(rf"</\s*+({_NAME})[^>]*+>")
_ATTRIBUTES = re.compile(_ATTRIBUTE.format("P<name>", "P<value>"))
_COMMENT_END, _SECTION_END = re.compile(r"--!?\s*+>"), re.compile(r"\]\s*+\]\s*+>")
_CODE_END = {name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE) for name in ("script", "style", "title")}
"""Where what has no markup in it ends."""
_ENDLESS_NUMBER = re.compile(r"&#\d{100,};?")  # which int() refuses


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
            text = page.decode(named[1].decode("ascii"))
            text.encode()  # some, such as unicode_escape, know characters that UTF-8 lacks
            return text
        except (LookupError, UnicodeError):  # no such encoding, or another one
            pass
        raise


def text_of_markup(markup: str) -> str:
    """Return the paragraphs of a page, with an empty line between any two."""
    if _FICTION_BOOK.match(markup):  # whose titles are those of its chapters, made of paragraphs
        markup = _TITLE.sub(r"<\1section", markup)
    text = _Text()
    text.read(markup)
    return text.text()


class _Text:
    """Collects the text of a page.

    Not by html.parser, which needs hours for a hostile page of a megabyte and differs between versions of Python. Here
    each character is looked at a few times, whatever the page.

    parts  of the text; each block begins and ends with two line ends
    out    the element that is being left out, and how many of its kind are open inside of it
    mark   where in `parts` a link or a superscript begins, which may be the number of a note
    plain  how many elements are open whose line ends are kept
    """

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.out, self.depth = "", 0
        self.mark: tuple[str, int] | None = None
        self.plain = 0

    def read(self, markup: str) -> None:
        """Take in a page. A tag without an end is text, a comment without one is read as markup."""
        ends = {_COMMENT_END: True, _SECTION_END: True}  # whether there may be one more
        place, last = 0, markup.rfind(">")
        while 0 <= (begin := markup.find("<", place)) < last:
            self._data(markup[place:begin])
            second = markup[begin + 1]
            if second.isascii() and second.isalpha():
                if (tag := _START_TAG.match(markup, begin)) is None:  # quoted to the end of the page
                    place = begin
                    break
                place = self._start(markup, tag)
            elif second == "/":
                if named := _END_TAG.match(markup, begin):
                    self._end(named[1].lower())
                place = markup.index(">", begin) + 1
            elif second in "!?":
                place = self._skip(markup, begin, ends)
            else:
                self._data("<")
                place = begin + 1
        self._data(markup[place:])

    def _skip(self, markup: str, begin: int, ends: dict[re.Pattern[str], bool]) -> int:
        """Return where a comment, a section, a declaration or an instruction ends that begins here."""
        for start, end in (("<!--", _COMMENT_END), ("<![CDATA[", _SECTION_END)):
            if markup.startswith(start, begin) and not markup.startswith(("<!-->", "<!--->"), begin):
                found = end.search(markup, begin + len(start)) if ends[end] else None
                ends[end] = found is not None
                return begin + len(start) if found is None else found.end()
        return markup.index(">", begin) + 1

    def _start(self, markup: str, match: re.Match[str]) -> int:
        """Take in a start tag, and return where what follows begins: of code or a title its end, or the page's."""
        tag = match[1].lower()
        if match[3].endswith("/"):
            if not self.depth:
                self._separate(tag)
            return match.end()
        self._begin(tag, match[2])
        if tag not in _CODE_END:
            return match.end()
        end = _CODE_END[tag].search(markup, match.end())
        return len(markup) if end is None else end.start()

    def _begin(self, tag: str, attributes: str) -> None:
        if self.out in ("rt", "rp") and tag in ("rt", "rp", "rb"):  # which need no end
            self.depth = 0
        if self.depth:
            self.depth += tag == self.out
            return
        given = (value for name, value in _ATTRIBUTES.findall(attributes) if name.lower() in _CLASSES)
        classes = {name for value in given for name in value.strip("'\"").split()}
        if tag in _LEFT_OUT or (classes & _PAGES and tag in ("span", "a", "sup")):
            self.out, self.depth = tag, 1
            return
        if tag in ("a", "sup"):
            self.mark = self.mark or (tag, len(self.parts))
        elif tag in ("pre", "poem"):
            self.plain += 1
        self._separate(tag)

    def _end(self, tag: str) -> None:
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

    def _data(self, data: str) -> None:
        if self.depth or not data:
            return
        if "&" in data:
            data = unescape(_ENDLESS_NUMBER.sub("\ufffd", data))
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
        text = "\n".join(map(str.strip, "".join(self.parts).split("\n")))
        return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
