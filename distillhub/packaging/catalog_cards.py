"""A card's Markdown as HTML: raw HTML is shown as text, and nothing is loaded from elsewhere."""

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

ALERT = re.compile(r"\[!(NOTE|TIP|IMPORTANT|WARNING|CAUTION)\]\s*")
OUTSIDE = ("https://", "http://")


def to_html(
    card: str, pictures: Collection[str], *, shown: Collection[str] = frozenset()
) -> Markup:
    """The body of a card; its front matter and its title are left out.

    Args:
        card: Text of a README.md.
        pictures: Files that the page has; other images become their description.
        shown: Files that the page shows elsewhere; they are left out.
    """
    parser = _parser()
    tokens = parser.parse(_body(card))
    tokens = _without_shown(_without_title(tokens), shown)
    _tidy(tokens, pictures)
    return Markup(parser.renderer.render(tokens, parser.options, {}))  # noqa: S704 - escaped


def _parser() -> "MarkdownIt":
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("table_open", _table_open)
    parser.add_render_rule("table_close", _table_close)
    parser.add_render_rule("fence", _fence)
    return parser


def _table_open(*_: object) -> str:
    return '<div class="scroll" role="group" aria-label="Table" tabindex="0">\n<table>\n'


def _table_close(*_: object) -> str:
    return "</table>\n</div>\n"


def _fence(_: object, tokens: "Sequence[Token]", place: int, *__: object) -> str:
    return str(Markup('<pre tabindex="0"><code>{}</code></pre>\n').format(tokens[place].content))


def _body(card: str) -> str:
    if not card.startswith("---\n"):
        return card
    return card[4:].partition("\n---\n")[2]


def _without_title(tokens: "list[Token]") -> "list[Token]":
    """Tokens without the first heading of the first level; further ones go down a level."""
    first = next((i for i, t in enumerate(tokens) if t.type == "heading_open"), None)
    if first is not None and tokens[first].tag == "h1":
        tokens = tokens[:first] + tokens[first + 3 :]
    level = 1
    for token in tokens:
        if token.type == "heading_open":
            level = min(max(int(token.tag[1]), 2), level + 1)
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{level}"
    return tokens


def _without_shown(tokens: "list[Token]", shown: Collection[str]) -> "list[Token]":
    """Tokens without the paragraphs that hold nothing but an image that is shown elsewhere."""
    kept: list[Token] = []
    for token in tokens:
        children = token.children or []
        if len(children) == 1 and children[0].type == "image":
            hidden = str(children[0].attrs.get("src", "")) in shown
            if hidden and kept and kept[-1].type == "paragraph_open":
                kept[-1].hidden = True
                token.children, token.content = [], ""
        kept.append(token)
        if token.type == "paragraph_close" and kept[-3].hidden and not kept[-2].children:
            del kept[-3:]
    return kept


def _tidy(tokens: "Sequence[Token]", pictures: Collection[str]) -> None:
    """Scopes for header cells, warnings as such, and only links and images that lead somewhere."""
    quote: Token | None = None
    for token in tokens:
        if token.type == "th_open":
            token.attrSet("scope", "col")
        elif token.type == "blockquote_open":
            quote = token
        elif token.type == "inline" and token.children:
            first = token.children[0]
            told = ALERT.match(first.content) if first.type == "text" else None
            if told and quote is not None:
                quote.attrSet("class", f"alert {told[1].lower()}")
                first.content = first.content[told.end() :] or told[1].capitalize()
            _children(token.children, pictures)


def _children(children: "Sequence[Token]", pictures: Collection[str]) -> None:
    dropped = []
    for token in children:
        if token.type == "image" and str(token.attrs.get("src", "")) not in pictures:
            token.type, token.tag, token.children = "text", "", None
        elif token.type == "image":
            token.attrSet("loading", "lazy")
        elif token.type == "link_open":
            outside = str(token.attrs.get("href", "")).startswith(OUTSIDE)
            dropped.append(not outside)
            if outside:
                token.attrSet("rel", "noopener noreferrer")
            else:
                token.type, token.tag, token.content, token.nesting = "text", "", "", 0
        elif token.type == "link_close" and dropped.pop():
            token.type, token.tag, token.content, token.nesting = "text", "", "", 0
