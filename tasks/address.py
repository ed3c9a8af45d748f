"""Addresses of servers as they may be shown: without user and password, also where an error repeats them."""

from __future__ import annotations

import re
from textwrap import shorten
from urllib.parse import parse_qsl, unquote

from tasks.database_url import forms, without

_LOGIN = re.compile(r"(?<=://)(?!/).*@", re.DOTALL)
"""Up to the last `@`, or what a password holds unencoded would be taken for the host and be shown."""


def shown(address: str) -> str:
    """The address without user, password and options."""
    return _LOGIN.sub("", address, count=1).partition("?")[0]


def quoted(error: BaseException, address: str, width: int) -> str:
    """What an error says, in one line of at most `width` characters, without what is secret in the address."""
    return shorten(hidden(str(error), address), width)


def hidden(text: str, address: str) -> str:
    """The text without user and password of the address; password and options that stand elsewhere become stars."""
    login, options = _LOGIN.search(address), [value for _, value in parse_qsl(address.partition("?")[2])]
    if login is None:
        return without(forms(*options), text)
    user, has_password, password = login[0].removesuffix("@").partition(":")
    secret = password if has_password else user  # a user without a password is a token
    return without(forms(secret, unquote(secret), *options), text.replace(login[0], ""))
