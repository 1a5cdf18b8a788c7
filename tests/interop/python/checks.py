"""What the Python clients share: one line a check, and verification of tokens against the provider's keys."""

import contextlib
import json
import os
import ssl
import sys
import traceback
import urllib.parse
import urllib.request

import jwt

SOCKET = os.environ["TOKEND_SOCKET"]
WORK = os.environ["WORK"]
HTTP = os.environ["IDP_HTTP"]
HTTPS = os.environ["IDP_HTTPS"]

# profile: (issuer, client, audience, scopes)
SIGNED = {
    "basic": (HTTP, "basic", "urn:api:orders", ["read", "write"]),
    "post": (HTTP, "post", "urn:api:billing", ["read"]),
    "signed": (HTTP, "signed", "urn:api:billing", ["read"]),
    "colon": (HTTP, "rest:api/v2", "urn:api:orders", ["read"]),
    "private-ca": (HTTPS, "basic", "urn:api:orders", ["read"]),
}
PROFILES = sorted([*SIGNED, "brief", "broken", "fixed", "legacy", "opaque", "open", "rejected", "stuck", "untrusted"])

_failed = 0
_prefix = sys.argv[0].rsplit("/", 1)[-1].removesuffix(".py")


@contextlib.contextmanager
def check(name):
    """Prints `ok NAME`, or `FAIL NAME: why` and goes on."""
    global _failed
    try:
        yield
    except Exception as error:
        _failed += 1
        lines = " ".join(str(error).split())
        print(f"FAIL {_prefix}: {name}: {type(error).__name__}: {lines}", flush=True)
        traceback.print_exc(limit=-2, file=sys.stderr)
    else:
        print(f"ok {_prefix}: {name}", flush=True)


def done():
    """Ends the program: 1 when a check failed."""
    sys.exit(1 if _failed else 0)


def equal(is_, should):
    """Fails with both values."""
    if is_ != should:
        raise AssertionError(f"{is_!r} instead of {should!r}")


def _tls():
    return ssl.create_default_context(cafile=f"{WORK}/ca.pem")


def verify(profile, token):
    """Verifies the token as an API would: signature by the issuer's published keys, issuer, audience, expiry."""
    issuer, client, audience, scopes = SIGNED[profile]
    context = _tls() if issuer == HTTPS else None
    with urllib.request.urlopen(f"{issuer}/.well-known/openid-configuration", timeout=10, context=context) as answer:
        metadata = json.load(answer)
    keys = jwt.PyJWKClient(metadata["jwks_uri"], ssl_context=context, timeout=10)
    claims = jwt.decode(
        token,
        keys.get_signing_key_from_jwt(token).key,
        algorithms=["RS256", "ES256"],
        audience=audience,
        issuer=issuer,
        options={"require": ["exp", "iat", "aud", "iss"]},
    )
    equal(claims["client_id"], client)
    equal(claims["scope"].split(), scopes)
    return claims


def introspect(token):
    """Asks the provider whether it knows an opaque token (RFC 7662)."""
    form = urllib.parse.urlencode({"token": token, "client_id": "post", "client_secret": secret()})
    with urllib.request.urlopen(f"{HTTP}/token/introspection", form.encode(), timeout=10) as answer:
        return json.load(answer)


def secret():
    """The client secret with every sign that may be in one."""
    with open(f"{WORK}/nasty.secret", encoding="ascii") as file:
        return file.read().rstrip("\n")
