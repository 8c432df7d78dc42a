"""What is a credential: by the name of a variable or a field, or by what its value says.

The one list of such names, for whatever shows, hands on or refuses what may be secret.
"""

from __future__ import annotations

import re

_WORDS = (
    "PASSWORD|PASSWD|PASSPHRASE|PASSFILE|SECRET|CREDENTIAL|APIKEY|ACCESSKEY|AUTHORIZATION"
    "|CONNECTION_?STRING"
)
_LAST = "(?:TOKEN|KEYS?)(?:_(?:ID|PATH|FILE|VALUE|DATA|BASE64))?|HEADERS"
_ALONE = "PASS|PAT|PWD|SAS|SIG|SIGNATURE|DSN|JWT|BEARER|COOKIES?|NETRC"
# Files that hold credentials, and the socket of who signs for the user.
_PLACES = "KUBECONFIG|PGSERVICEFILE|SSH_AUTH_SOCK|AWS_CONFIG_FILE|DOCKER_CONFIG"
_NAME = re.compile(
    rf"{_WORDS}|(?:{_LAST})$|[^A-Z](?:{_ALONE})$|^(?:{_ALONE})$|^(?:{_PLACES})$", re.IGNORECASE
)
_NO_CREDENTIAL = ("PWD", "OLDPWD")  # variables of each shell
# `name=`, `"name":` and their like, in a connection string, headers, JSON.
_FIELD = re.compile(r"""([A-Za-z][\w.-]*)["']?\s*[=:](?!//)\s*(?=[^\s=:&;,}])""")


def names_credential(name: str) -> bool:
    """Return whether a variable or a field of that name holds a credential, in any case."""
    return name not in _NO_CREDENTIAL and bool(_NAME.search(name))


def has_credential_field(value: str) -> bool:
    """Return whether `value` gives a field a credential: `password=x`, `{"secret": "x"}`."""
    return any(names_credential(field.group(1)) for field in _FIELD.finditer(value))
