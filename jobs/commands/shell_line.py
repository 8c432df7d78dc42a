"""A line for the shell in which values stand as what they are, wherever it names them.

Bare a value is one word, and within quotes it ends none. Where quotes begin and end is read as the
shell reads it: with what `$(...)` and `${...}` hold, comments, and documents (`<<END`).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

NAME = re.compile(r"(?<!\$)\{([a-z]+(?:\.[A-Za-z0-9_-]+)?)\}")
_Quote: TypeAlias = Callable[[str], str]


def filled(line: str, value: Callable[[str], str | None], words: Mapping[str, str]) -> str:
    """Return `line` with the `value` of each name in it; names without one stay as they are.

    Names of `words` stand for several words, written for the shell.
    """
    reader, parts = _ShellReader(line), list[str]()
    while reader.position < len(line):
        name = NAME.match(line, reader.position)
        text = _filled_name(name[1], value, words, reader.quote) if name else None
        if name and text is not None:
            parts.append(text)
            reader.position = name.end()
        else:
            parts.append(reader.step())
            bodies = reader.documents() if parts[-1] == "\n" else []
            parts.extend(_filled_document(*body, value, words) for body in bodies)
    return "".join(parts)


def _filled_name(
    name: str, value: Callable[[str], str | None], words: Mapping[str, str], quote: _Quote
) -> str | None:
    if name in words:
        return words[name] if quote is _word else quote(words[name])
    text = value(name)
    return None if text is None else quote(text)


def _filled_document(
    body: str, quote: _Quote, value: Callable[[str], str | None], words: Mapping[str, str]
) -> str:
    def text(match: re.Match[str]) -> str:
        known = _filled_name(match[1], value, words, quote)
        return match[0] if known is None else known

    return NAME.sub(text, body)


# --- how a value is written where it stands -----------------------------------------------------


def _word(text: str) -> str:
    return shlex.quote(text) if text else ""  # bare nothing is no word


def _in_double_quotes(text: str) -> str:
    return re.sub(r'([\\"$`])', r"\\\1", text)


def _in_braces_within(text: str) -> str:
    if text in {"", shlex.quote(text)}:
        return text
    return f'"{_in_double_quotes(text)}"'  # within these bash reads neither ' nor }


def _in_single_quotes(text: str) -> str:
    return text.replace("'", "'\\''")


def _in_escaping_quotes(text: str) -> str:
    return re.sub(r"([\\'])", r"\\\1", text)


def _in_a_document(text: str) -> str:
    return re.sub(r"([\\$`])", r"\\\1", text)


# --- where it stands ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Quoting:
    """A kind of place: what counts in it, what begins another there, and what ends it."""

    tokens: re.Pattern[str]
    quote: _Quote
    end: str = ""
    begins: Mapping[str, str] = field(default_factory=dict)


_DOCUMENT = r"<<(?P<tabs>-?)[ \t]*(?P<document>'[^'\n]+'|\"[^\"\n]+\"|\\?[A-Za-z_][\w.-]*)"
_OF_WORDS = re.compile(
    rf"\\.|\$?['\"]|\$?\(|\$\{{|`|<<<|{_DOCUMENT}|(?:^|(?<=[\s;&|(]))\#", re.DOTALL
)
_OF_DOUBLE_QUOTES = re.compile(r"\\.|\$\(|\$\{|`", re.DOTALL)
_IN_WORDS: Mapping[str, str] = {
    "'": "'",
    "$'": "$'",
    '"': '"',
    '$"': '"',
    "(": "(",
    "$(": "(",
    "${": "${",
    "`": "`",
    "#": "#",
}
_IN_DOUBLE_QUOTES: Mapping[str, str] = {"$(": "(", "${": '"${', "`": "`"}
_KINDS: Mapping[str, _Quoting] = MappingProxyType(
    {
        "": _Quoting(_OF_WORDS, _word, "", _IN_WORDS),
        "(": _Quoting(_OF_WORDS, _word, ")", _IN_WORDS),
        "${": _Quoting(_OF_WORDS, _word, "}", _IN_WORDS),
        "`": _Quoting(_OF_WORDS, _word, "`", _IN_WORDS),
        '"': _Quoting(_OF_DOUBLE_QUOTES, _in_double_quotes, '"', _IN_DOUBLE_QUOTES),
        '"${': _Quoting(
            _OF_DOUBLE_QUOTES, _in_braces_within, "}", {**_IN_DOUBLE_QUOTES, '"': '"'}
        ),
        "'": _Quoting(re.compile("'"), _in_single_quotes, "'"),
        "$'": _Quoting(re.compile(r"\\.|'", re.DOTALL), _in_escaping_quotes, "'"),
        "#": _Quoting(re.compile(r"\n"), _word, "\n"),
    }
)


class _ShellReader:
    """Steps through a line, and says where in it that is."""

    def __init__(self, line: str) -> None:
        self._line, self._open = line, [""]
        self._announced: list[re.Match[str]] = []  # documents that begin in the next line
        self.position = 0

    @property
    def quote(self) -> _Quote:
        """How a value is written here."""
        return _KINDS[self._open[-1]].quote

    def step(self) -> str:
        """Return what stands here, and go on behind it."""
        kind = _KINDS[self._open[-1]]
        token = kind.tokens.match(self._line, self.position)
        text = token[0] if token else self._line[self.position]
        self.position += len(text)
        if text == kind.end:
            self._open.pop()
        elif text in kind.begins:
            self._open.append(kind.begins[text])
        elif token and token.lastgroup == "document":
            self._announced.append(token)
        return text

    def documents(self) -> list[tuple[str, _Quote]]:
        """Pass the documents that begin here; return them, with how values are written there.

        None begins within quotes.
        """
        if self.quote is not _word:
            return []
        announced, self._announced = self._announced, []
        return [self._document(token) for token in announced]

    def _document(self, token: re.Match[str]) -> tuple[str, _Quote]:
        end = token["document"].strip("'\"\\")
        tabs = r"\t*" if token["tabs"] else ""
        last = re.compile(rf"^{tabs}{re.escape(end)}$", re.MULTILINE).search(
            self._line, self.position
        )
        begin, self.position = self.position, last.end() if last else len(self._line)
        plain = token["document"] == end
        return self._line[begin : self.position], _in_a_document if plain else str
