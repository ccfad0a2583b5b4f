"""Who may ask: bearer tokens, and access tokens of an OpenID provider."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import time
import urllib.request
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ai4sdk.errors import EnvironmentFault
from ai4sdk.serving.refusals import Refused
from ai4sdk.spec.serving import Oidc

if TYPE_CHECKING:
    from jwt import PyJWK

__all__ = ["Guard", "Provider"]

log = logging.getLogger(__name__)

_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures with public keys only: a shared secret would let whoever verifies make tokens."""
_LEEWAY = 30.0
_KNOWN = 1024
_LOOK_AGAIN = 10.0
_MOST_BYTES = 1 << 20


class Provider:
    """An OpenID provider: its keys, and what its tokens must say.

    Parameters
    ----------
    settings
        Who it is and what is required.
    """

    def __init__(self, settings: Oidc) -> None:
        try:
            import jwt
        except ImportError as error:
            raise EnvironmentFault("serving.oidc needs PyJWT", hint="pip install 'ai4sdk[oidc]'") from error
        self._jwt = jwt
        self._settings = settings
        self._keys: dict[str, PyJWK] = {}
        self._looked = 0.0
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._lock = asyncio.Lock()

    async def check(self, token: str) -> None:
        """Let pass who has a valid token.

        Raises
        ------
        Refused
            Anybody else, with the reason.
        """
        digest = hashlib.sha256(token.encode()).digest()
        until = self._known.get(digest)
        if until is not None and time.time() < until:
            return
        claims = await self._verified(token)
        for claim, wanted in self._settings.require.items():
            if not _has(claims, claim, [wanted] if isinstance(wanted, str) else wanted):
                raise Refused(403, f"the token lacks what is required of {claim}")
        self._known[digest] = float(claims["exp"])
        self._known.move_to_end(digest)
        while len(self._known) > _KNOWN:
            self._known.popitem(last=False)

    async def _verified(self, token: str) -> Mapping[str, Any]:
        jwt = self._jwt
        try:
            head = jwt.get_unverified_header(token)
            if head.get("alg") not in _ALGORITHMS:
                raise Refused(401, "the token is not signed with a public key")
            key = await self._key(str(head.get("kid")))
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[head["alg"]],
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=_LEEWAY,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.ExpiredSignatureError:
            raise Refused(401, "the token has expired") from None
        except jwt.PyJWTError as error:
            raise Refused(401, f"the token is not valid: {error}") from None
        return claims

    async def _key(self, name: str) -> PyJWK:
        """Return a key of the provider's; it is asked again for one that is not known, but not for each stranger."""
        async with self._lock:
            if name not in self._keys and time.monotonic() > self._looked + _LOOK_AGAIN:
                self._looked = time.monotonic()
                try:
                    self._keys = await asyncio.get_running_loop().run_in_executor(None, self._fetch)
                except (OSError, ValueError, KeyError) as error:
                    self._looked = 0.0
                    log.error("%s does not give its keys: %s", self._settings.issuer, error)
                    raise Refused(503, "the identity provider does not answer") from None
        if name not in self._keys:
            raise Refused(401, "the token is signed with a key that is not the provider's")
        return self._keys[name]

    def _fetch(self) -> dict[str, PyJWK]:
        base = self._settings.issuer.rstrip("/")
        described = _get_json(f"{base}/.well-known/openid-configuration")
        if described["issuer"] != self._settings.issuer:
            raise ValueError(f"it calls itself {described['issuer']}")
        keys = self._jwt.PyJWKSet.from_dict(_get_json(described["jwks_uri"])).keys
        return {str(key.key_id): key for key in keys}


class Guard:
    """Lets pass who has one of the tokens, or one of the provider's.

    Parameters
    ----------
    tokens
        The tokens themselves.
    provider
        Asked for any other.
    """

    def __init__(self, tokens: Sequence[str], provider: Provider | None) -> None:
        self._digests = [hashlib.sha256(token.encode()).digest() for token in tokens]
        self._provider = provider

    async def check(self, authorization: str) -> None:
        """Let pass who may ask.

        Parameters
        ----------
        authorization
            The header of that name; empty without one.

        Raises
        ------
        Refused
            Anybody else, with the reason.
        """
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Refused(401, "a bearer token is needed: Authorization: Bearer …")
        digest = hashlib.sha256(token.encode()).digest()
        if sum(hmac.compare_digest(digest, known) for known in self._digests):  # all are compared, whichever it is
            return
        if self._provider is None:
            raise Refused(401, "the token is not known")
        await self._provider.check(token)


def _has(claims: Mapping[str, Any], name: str, wanted: Sequence[str]) -> bool:
    found: Any = claims.get(name)
    if found is None:
        found = claims
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
    if isinstance(found, str):
        return found in wanted or any(word in wanted for word in found.split())
    if isinstance(found, list):
        return any(one in wanted for one in found)
    return found is not None and str(found) in wanted


def _get_json(address: str) -> dict[str, Any]:
    if not address.startswith(("https://", "http://")):
        raise ValueError(f"{address!r} is no address")
    with urllib.request.urlopen(address, timeout=10) as answer:
        found: dict[str, Any] = json.loads(answer.read(_MOST_BYTES))
    return found
