"""Tables for notebooks, which show an object by its `_repr_html_`."""

import html
from collections.abc import Mapping

__all__ = ["html_table"]


def html_table(title: str, rows: Mapping[str, object]) -> str:
    """Return a table of names and what they are; rows whose value is None are left out."""
    lines = "".join(
        f'<tr><th scope="row" style="text-align: left">{html.escape(name)}</th>'
        f'<td style="text-align: left">{html.escape(str(value))}</td></tr>'
        for name, value in rows.items()
        if value is not None
    )
    return f'<table><caption style="text-align: left">{html.escape(title)}</caption><tbody>{lines}</tbody></table>'
