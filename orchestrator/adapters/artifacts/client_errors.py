"""What the clients of object stores raise, told apart without importing them.

fsspec's clients turn what a store has answered into an `OSError` that is caused by the exception
of the store's own client, which holds the code of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# A bucket that is not there is no missing file: nothing that the store holds can be read.
_NO_BUCKET = frozenset({"NoSuchBucket"})
_CONDITION = frozenset({"PreconditionFailed", "412"})
_NO_CONDITIONS = frozenset({"NotImplemented", "501"})
_NO_CREDENTIALS = frozenset(
    {
        *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"),
        *("NoAuthTokenError", "ProfileNotFound", "TokenRetrievalError", "SSOTokenLoadError"),
        *("DefaultCredentialsError", "UnauthorizedSSOTokenError"),
    }
)
# Of TLS: who signs for the store is not known here, or the file that says so can't be read.
_UNTRUSTED = re.compile(
    r"CERTIFICATE_VERIFY_FAILED|NO_CERTIFICATE|Invalid CA bundle"
    r"|HTTP Client raised .*(?:No such file|Permission denied)"
)


def code(error: BaseException) -> str:
    """Return the code of what an object store has answered; empty where it has not."""
    response = getattr(error.__cause__ or error, "response", None)
    answer = response.get("Error") if isinstance(response, Mapping) else None
    return str(answer.get("Code", "")) if isinstance(answer, Mapping) else ""


def bucket_is_gone(error: BaseException) -> bool:
    """Whether the bucket is not there."""
    return code(error) in _NO_BUCKET


def lacks_credentials(error: BaseException) -> bool:
    """Whether the client has no credentials to ask with."""
    return any(base.__name__ in _NO_CREDENTIALS for base in type(error).__mro__)


def is_untrusted(error: BaseException) -> bool:
    """Whether the store is not proved by whom this machine trusts."""
    return bool(_UNTRUSTED.search(str(error)))


def exists_already(error: BaseException) -> bool:
    """Whether the store has refused to write over what is there."""
    return isinstance(error, FileExistsError) or code(error) in _CONDITION


def takes_no_conditions(error: BaseException) -> bool:
    """Whether the store says that it can't be asked to write only what is not there."""
    return isinstance(error, NotImplementedError) or code(error) in _NO_CONDITIONS
