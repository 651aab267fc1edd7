"""What is stored of strings and configs: no credentials, and in records no place of this machine."""

import re
from pathlib import Path

from experiments import PROJECT

_CREDENTIALS = re.compile(
    r"(?P<mongo>mongodb(?:\+srv)?://)[^\s'\"]*@"  # up to the last @: an unescaped password may hold / and @
    r"|(?<![a-z0-9+.-])(?P<other>[a-z0-9+.-]+://)[^\s/'\"@]+@",  # looking behind keeps it linear in long words
    re.IGNORECASE,
)
_SECRET_OPTIONS = re.compile(r"((?:tlsCertificateKeyFilePassword|authMechanismProperties)=)[^&\s'\"]+", re.IGNORECASE)
_MONGO_URL = re.compile(r"(mongodb(?:\+srv)?://)[^\s'\"]+", re.IGNORECASE)


def redact(value):
    """A copy of a string, config or other nested value without credentials.

    `mongodb://user:secret@host/db` becomes `mongodb://***@host/db`; so do the credentials of any other URL.
    """

    def clean(text: str) -> str:
        text = _CREDENTIALS.sub(lambda match: (match["mongo"] or match["other"]) + "***@", text)
        return _SECRET_OPTIONS.sub(r"\1***", text)

    return _map_strings(clean, value)


def for_record(config: dict) -> dict:
    """A copy of a config that may be published: no credentials, no database host, no absolute path."""

    def clean(text: str) -> str:
        return _MONGO_URL.sub(r"\1***", relative(text) if Path(text).is_absolute() else text)

    return _map_strings(clean, redact(config))


def relative(path: str | Path) -> str:
    """`path` as a record states it: relative to the project; of an absolute path elsewhere only the last part."""
    path = Path(path)
    if not path.is_absolute():
        return path.as_posix()
    return path.relative_to(PROJECT).as_posix() if path.is_relative_to(PROJECT) else path.name


def _map_strings(function, value):
    """Apply `function` to every string in nested dictionaries and lists."""
    if isinstance(value, str):
        return function(value)
    if isinstance(value, dict):
        return {_map_strings(function, key): _map_strings(function, item) for key, item in list(value.items())}
    if isinstance(value, (list, tuple)):
        return [_map_strings(function, item) for item in value]
    return value
