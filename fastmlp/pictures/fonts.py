"""Fonts of this machine that have the letters of a text."""

from collections.abc import Iterable

__all__ = ["fonts_for"]

_SHOWS_BOXES = "lastresort"  # a font that has every letter, as a box


def fonts_for(texts: Iterable[str]) -> tuple[list[str], str]:
    """Return the families to draw texts in, the usual one first, and the letters that no font has, in order."""
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

    def known(file: str) -> set[int]:
        try:
            return set(get_font(file).get_charmap())
        except (OSError, RuntimeError):  # a font that cannot be read
            return set()

    families = list(rcParams["font.family"])
    wanted = {ord(letter) for text in texts for letter in text if not letter.isascii() and not letter.isspace()}
    missing = wanted - known(findfont(FontProperties())) if wanted else wanted
    for entry in fontManager.ttflist:
        if not missing:
            break
        is_plain = entry.style == "normal" and entry.weight in (400, "normal", "regular")
        if is_plain and not entry.name.lower().replace(" ", "").startswith(_SHOWS_BOXES):
            there = missing & known(entry.fname)
            if there:
                families.append(entry.name)
                missing -= there
    return families, "".join(map(chr, sorted(missing)))
