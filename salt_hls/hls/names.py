"""Names of layers and model files as names in C++ and Tcl."""

from __future__ import annotations

import re

RESERVED = """
alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t char32_t
char8_t class co_await co_return co_yield compl concept const const_cast consteval constexpr
constinit continue decltype default delete do double dynamic_cast else enum explicit export
extern false float for friend goto if import inline int long module mutable namespace new
noexcept not not_eq nullptr operator or or_eq private protected public register reinterpret_cast
requires return short signed sizeof static static_assert static_cast struct switch template this
thread_local throw true try typedef typeid typename union unsigned using virtual void volatile
wchar_t while xor xor_eq assert defines errno half hls isinf isnan linux main nnet parameters
particles signbit std stderr stdin stdout unix
"""
"""C++ keywords, and names that are taken wherever the top function is declared."""

TAKEN = re.compile(r"[A-Z0-9_]+|.*_(t|in)|(ap|ac|hls|nnet)_.*|(w|b|s|a|layer|config|\w*table)\d+.*")
"""Macros, types, and what hls4ml and the vendors' headers call their own."""


def identifier(name: str) -> str:
    """What a name is in C++: ASCII letters, digits and single underscores; maybe nothing."""
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")


def top_name(model: str) -> str:
    """A name of the top function that C++ and Tcl take, and that nothing else has."""
    name = identifier(model)
    if not name[:1].isalpha() or name in RESERVED.split() or TAKEN.fullmatch(name):
        name = f"model_{name}"
    return name[:64].rstrip("_")
