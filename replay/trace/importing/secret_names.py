"""Names of parameters, fields and headers whose values are secret or identify the client."""

from __future__ import annotations

import re
from functools import lru_cache

SECRET_SUFFIXES = (
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "passwordconfirm",
    "passwordconfirmation",
    "passwordagain",
    "userpass",
    "passwort",
    "kennwort",
    "pwd",
    "apikey",
    "accesskey",
    "accesskeyid",
    "privatekey",
    "secretkey",
    "subscriptionkey",
    "signature",
    "hmac",
    "sessionid",
    "sessid",
    "sessionkey",
    "credential",
    "credentials",
    "authorization",
    "assertion",
    "samlrequest",
    "samlresponse",
    "bearer",
    "jwt",
    "csrf",
    "xsrf",
    "wpnonce",
    "verifier",
    "authcode",
    "accesscode",
    "verificationcode",
    "securitycode",
    "securityanswer",
    "cardnumber",
    "cardnum",
    "cardno",
    "creditcard",
    "ccnumber",
    "cvv",
    "ssn",
    "securitynumber",
    "passportnumber",
)
"""A parameter whose name ends with one of these is secret (`csrf_token`, `X-Amz-Signature`, `PHPSESSID`)."""

SECRET_NAMES = (
    "key",
    "pass",
    "pw",
    "psw",
    "auth",
    "oauth",
    "sig",
    "session",
    "sid",
    "connectsid",
    "code",
    "otp",
    "totp",
    "pin",
    "pincode",
    "ticket",
    "serviceticket",
    "samlart",
    "idtokenhint",
    "nonce",
    "cookie",
    "card",
    "cvc",
    "csc",
    "iban",
    "phone",
    "telephone",
    "phonenumber",
    "mobilenumber",
    "mobilephone",
    "cellphone",
    "msisdn",
)
"""A parameter whose whole name is one of these is secret."""

SET_COOKIE = "set-cookie"
"""A header, and so a name before a colon, that is secret although `cookie` is not its whole name."""

SECRET_WORDS = frozenset(
    {
        "auth", "authorization", "authentication", "bearer", "cookie", "credential", "credentials", "csrf", "hmac", "jwt",
        "otp", "password", "pin", "saml", "secret", "session", "sid", "sig", "signature", "ssn", "ticket", "token", "xsrf",
        "assertion", "apikey", "cert",
    }
)  # fmt: skip
"""A header with one of these words in its name is secret (`X-User-Jwt`)."""

WHO_WORDS = frozenset({"ip", "addr", "address", "email", "forwarded", "user", "username", "userid", "from"})
"""A header with one of these words in its name identifies the client (`X-Real-IP`), except _HARMLESS_HEADERS."""

_HARMLESS_HEADERS = frozenset(
    {
        "user-agent", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-path",
        "x-forwarded-server", "x-forwarded-scheme", "x-forwarded-protocol", "x-forwarded-ssl", "sec-ch-ua",
    }
)  # fmt: skip

_NAME = re.compile(r"%[0-9A-Fa-f]{2}|.", re.DOTALL)
_MARKS = re.compile(r"[-_.\[\]]")
_DIGITS = "0123456789"


@lru_cache(1 << 12)
def secret_key(name: str) -> str:
    """Return the known secret name that a parameter's name equals or ends with; empty if there is none.

    Names are compared in lower case, percent-decoded, without `- _ . [ ]` and without trailing digits.
    """
    decoded = _NAME.sub(lambda m: chr(int(m[0][1:], 16)) if len(m[0]) == 3 else m[0], name).lower()
    plain = _MARKS.sub("", decoded).rstrip(_DIGITS)
    if plain in SECRET_NAMES:
        return plain
    return max((suffix for suffix in SECRET_SUFFIXES if plain.endswith(suffix)), key=len, default="")


def is_secret(name: str) -> bool:
    """Return whether a parameter's name marks its value as secret."""
    return secret_key(name) != ""


@lru_cache(1 << 12)
def is_secret_header(name: str) -> bool:
    """Return whether a header identifies or authorizes the client, judged by its name."""
    lowered = name.strip().lower()
    if lowered in _HARMLESS_HEADERS:
        return False
    words = set(re.split(r"[-_.]", lowered))
    return bool(words & (SECRET_WORDS | WHO_WORDS)) or is_secret(lowered.removeprefix("x-"))
