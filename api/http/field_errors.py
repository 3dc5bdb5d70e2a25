"""Errors of single fields of a request, in plain words instead of pydantic's.

Pydantic's texts reach this module in two ways: as its own errors, and inside sentences of `ml`, which validates
hyper-parameters itself. One table serves both, so it matches texts. No text repeats the value that was sent.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from re import Match, compile
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, Tag
from pydantic_core.core_schema import ErrorType

from api.http.problems import MAX_ERRORS, FieldError

N = r"(-?\d[\d.]*(?:e[+-]?\d+)?)"  # a number
COUNT = rf"{N} \w+(?: after validation, not (?:\d+|more than \d+))?"  # "3 items after validation, not 5"

# By pydantic's name of each kind of error: its text, and ours. {0} is the first group of the pattern.
PLAIN_WORDS: dict[str, tuple[str, str]] = {
    "missing": ("Field required", "missing; this field is required"),
    "extra_forbidden": (
        "Extra inputs are not permitted",
        "unknown field; /docs lists the fields, GET /catalog the hyper-parameters",
    ),
    "invalid_key": ("Keys should be strings", "wrong type of key; use strings as keys"),
    "recursion_loop": ("Recursion error - cyclic reference detected", "contains itself; send plain values"),
    "greater_than": (f"Input should be greater than {N}", "too small; give a number above {0}"),
    "greater_than_equal": (f"Input should be greater than or equal to {N}", "too small; give {0} or more"),
    "less_than": (f"Input should be less than {N}", "too large; give a number below {0}"),
    "less_than_equal": (f"Input should be less than or equal to {N}", "too large; give {0} or less"),
    "multiple_of": (f"Input should be a multiple of {N}", "not a multiple of {0}; give one"),
    "finite_number": ("Input should be a finite number", "not finite; give a number other than NaN and Infinity"),
    "too_short": (rf"\b(?!String)\w+ should have at least {COUNT}", "too few items; give at least {0}"),
    "too_long": (rf"\b(?!String)\w+ should have at most {COUNT}", "too many items; give at most {0}"),
    "string_too_short": (rf"String should have at least {N} characters?", "too short; give at least {0} characters"),
    "string_too_long": (rf"String should have at most {N} characters?", "too long; give at most {0} characters"),
    "string_pattern_mismatch": ("String should match pattern '(.*)'", "{form}"),
    "string_unicode": (
        "Input should be a valid string, unable to parse raw data as a unicode string",
        "not valid text; send UTF-8 without lone surrogates",
    ),
    "string_type": ("Input should be a valid string", "wrong type; give a string"),
    "bytes_type": ("Input should be a valid bytes", "wrong type; give a string"),
    "bool_parsing": (
        "Input should be a valid boolean, unable to interpret input",
        "wrong type; give true or false",
    ),
    "bool_type": ("Input should be a valid boolean", "wrong type; give true or false"),
    "int_parsing": (
        "Input should be a valid integer, unable to parse string as an integer",
        "wrong type; give a whole number",
    ),
    "int_parsing_size": (
        "Unable to parse input string as an integer, exceeded maximum size",
        "too many digits; give a smaller whole number",
    ),
    "int_from_float": (
        "Input should be a valid integer, got a number with a fractional part",
        "wrong type; give a whole number",
    ),
    "int_type": ("Input should be a valid integer", "wrong type; give a whole number"),
    "float_parsing": (
        "Input should be a valid number, unable to parse string as a number",
        "wrong type; give a number",
    ),
    "float_type": ("Input should be a valid number", "wrong type; give a number"),
    "literal_error": (r"Input should be ('.*'|\d.*)", "unknown value; use {0}"),
    "enum": (r"Input should be ('.*'|\d.*)", "unknown value; use {0}"),
    "none_required": ("Input should be None", "wrong type; give null"),
    "list_type": ("Input should be a valid list", "wrong type; give a list"),
    "tuple_type": ("Input should be a valid tuple", "wrong type; give a list"),
    "set_type": ("Input should be a valid set", "wrong type; give a list"),
    "model_type": (
        r"Input should be a valid dictionary or instance of \w+",
        "wrong type; give an object",
    ),
    "model_attributes_type": (
        "Input should be a valid dictionary or object to extract fields from",
        "wrong type; give an object",
    ),
    "dict_type": ("Input should be a valid dictionary", "wrong type; give an object"),
    "json_invalid": ("Invalid JSON: .*", "not valid JSON; check its quotes, commas and brackets"),
}
ANYTHING_ELSE = "not allowed here; /docs describes what is"

# The patterns of our schemas in words. A test finds every pattern of the API's document here.
FORMS = {
    r"^[a-z0-9][a-z0-9_-]{0,62}$": "use lower-case letters, digits, - and _, at most 63 characters, no - or _ first",
    r"^[^\x00]*$": "contains a NUL character; leave it out",
    r"^[\x21-\x7e]+$": "use ASCII letters, digits and punctuation, without spaces",
    "^[0-9a-f]{64}$": "not a SHA-256; give 64 hexadecimal digits in lower case",
    r"^fastest-within:(100(\.0{1,6})?|[0-9]{1,2}(\.[0-9]{1,6})?)$": (
        "not a preference; give fastest-within: and percentage points from 0 to 100, such as fastest-within:0.2"
    ),
}
UNKNOWN_FORM = "wrong form; /docs describes the right one"
OURS = ("value_error", "assertion_error")  # errors of pydantic that carry a text of ours
PREFIXES = ("Value error, ", "Assertion failed, ")  # what pydantic puts before such a text

# Longer texts first: "Input should be a valid integer" begins several.
_rules = sorted(
    ((compile(text), plain) for text, plain in PLAIN_WORDS.values()), key=lambda rule: -len(rule[0].pattern)
)
_types = frozenset(get_args(ErrorType))


def plain_words(text: str) -> str:
    """Return a text with our words in place of pydantic's, wherever it holds them."""
    for prefix in PREFIXES:
        text = text.removeprefix(prefix)
    for pattern, plain in _rules:
        text = pattern.sub(lambda found, plain=plain: _filled(plain, found), text)  # type: ignore[misc]
    return text


def field_error(error: Mapping[str, Any], pointer: str, model: Any = None) -> FieldError:
    """Return one of pydantic's errors as ours.

    Args:
        error: as `ValidationError.errors()` lists it.
        pointer: to the field.
        model: what the input was validated against, if the error's `loc` begins there; it names the known fields.
    """
    kind = error["type"]
    if kind in PLAIN_WORDS or kind in OURS or kind not in _types:  # the last are our own types, with our own texts
        detail = plain_words(str(error["msg"]))
    else:
        detail = ANYTHING_ELSE
    if kind == "extra_forbidden" and (known := known_fields(model, error["loc"][:-1])):
        detail = unknown_field(known)
    return FieldError(pointer=pointer, detail=detail)


def unknown_fields(fields: Iterable[str], known: Collection[str], prefix: str) -> list[FieldError]:
    """Return an error for each of the first MAX_ERRORS fields that are not known."""
    unknown = islice((name for name in fields if name not in known), MAX_ERRORS)
    detail = unknown_field(known)
    return [FieldError(pointer=pointer_to(prefix, [name]), detail=detail) for name in unknown]


def unknown_field(known: Iterable[str]) -> str:
    """Return the text for a field that a model does not have."""
    return f"unknown field; known fields are {', '.join(known)}"


def not_json(position: int) -> str:
    """Return the text for a body that is no JSON from a position on, counted from 0."""
    return f"not valid JSON at character {position + 1}; check the quotes, commas and brackets there"


def known_fields(kind: Any, path: Sequence[str | int]) -> list[str]:
    """Return the names of the fields at a location that pydantic gives, none if no model stands there.

    Pydantic names a branch of a union by its tag.
    """
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if not path:
            return list(kind.model_fields)
        field = kind.model_fields.get(str(path[0]))
        return [] if field is None else known_fields(field.annotation, path[1:])
    branches = [branch for branch in get_args(kind) if branch is not NoneType]
    if get_origin(kind) in (dict, list, tuple):
        return known_fields(branches[-1], path[1:]) if branches and path else []
    tagged = [branch for branch in branches if path and _tag(branch) == path[0]]
    if tagged:
        return known_fields(tagged[0], path[1:])
    return known_fields(branches[0], path) if len(branches) == 1 else []


def pointer_to(prefix: str, path: Iterable[str | int]) -> str:
    """Return a JSON pointer (RFC 6901) after a prefix; long keys are cut."""
    texts = [str(key)[:60].encode(errors="replace").decode() for key in path]
    return prefix + "/".join(text.replace("~", "~0").replace("/", "~1") for text in texts)


def _tag(branch: Any) -> str | None:
    return next((each.tag for each in get_args(branch)[1:] if isinstance(each, Tag)), None)


def _filled(plain: str, found: Match[str]) -> str:
    groups = [_number(group) for group in found.groups()]
    return plain.format(*groups, form=FORMS.get(found.groups()[0], UNKNOWN_FORM) if groups else "")


def _number(text: str) -> str:
    """Return a text, or a whole number with its thousands set off."""
    return f"{int(text):,}" if text.lstrip("-").isdecimal() else text
