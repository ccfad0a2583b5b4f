"""Who has a token that is known, or one of the provider's for this service, may ask; nobody else."""

import asyncio
import base64
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ai4sdk.serving.guard import Guard, Provider
from ai4sdk.serving.refusals import Refused
from ai4sdk.spec.serving import Oidc

AUDIENCE = "urn:ai4sdk:fish"


class Issuer:
    """Keys, behind a provider's two addresses. Stands in for a provider, to sign what none would."""

    def __init__(self):
        self.keys = {"a": rsa.generate_private_key(public_exponent=65537, key_size=2048)}
        self.asked = 0
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                issuer.asked += 1
                body = issuer.document(self.path)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/realms/fish"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def document(self, path):
        if path.endswith("openid-configuration"):
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        found = []
        for name, key in self.keys.items():
            kind = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
            found.append({**kind.to_jwk(key.public_key(), as_dict=True), "kid": name, "use": "sig"})
        return {"keys": found}

    def token(self, name="a", key=None, algorithm="RS256", **claims):
        now = int(time.time())
        every = {"iss": self.url, "aud": AUDIENCE, "exp": now + 60, "iat": now, "sub": "ana", **claims}
        every = {claim: value for claim, value in every.items() if value is not None}
        return jwt.encode(every, key or self.keys.get(name), algorithm=algorithm, headers={"kid": name})


@pytest.fixture
def issuer():
    made = Issuer()
    yield made
    made.server.shutdown()
    made.server.server_close()


def asked(guard, *headers):
    """What each of them is told: 0 for those who may."""

    async def ask():
        found = []
        for header in headers:
            try:
                await guard.check(header)
                found.append(0)
            except Refused as denied:
                found.append(denied.status)
        return found

    return asyncio.run(ask())


def guard_of(issuer, **settings):
    return Guard(["known"], Provider(Oidc(issuer=issuer.url, audience=AUDIENCE, **settings)))


def test_tokens_that_are_known_may_ask():
    guard = Guard(["one", "twö"], None)
    headers = [
        "Bearer one",
        "bearer twö",
        "Bearer  one ",
        "Bearer on",
        "Bearer oned",
        "Basic one",
        "one",
        "",
        "Bearer",
        "Bearer ",
    ]
    assert asked(guard, *headers) == [0, 0, 0, 401, 401, 401, 401, 401, 401, 401]


def test_the_providers_tokens_may_ask_and_others_too(issuer):
    issuer.keys["b"] = ec.generate_private_key(ec.SECP256R1())
    guard = guard_of(issuer)
    assert asked(
        guard, "Bearer known", f"Bearer {issuer.token()}", f"Bearer {issuer.token('b', algorithm='ES256')}"
    ) == [0, 0, 0]


def test_a_token_must_be_valid_and_for_this_service(issuer):
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = json.dumps(issuer.document("/keys")["keys"][0]).encode()
    unsigned = ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in ({"alg": "none", "kid": "a"}, {"iss": issuer.url, "aud": AUDIENCE, "exp": time.time() + 60})
    )
    wrong = {
        "expired": issuer.token(exp=int(time.time()) - 120),
        "not yet": issuer.token(nbf=int(time.time()) + 300),
        "for another": issuer.token(aud="urn:ai4sdk:bird"),
        "for nobody": issuer.token(aud=None),
        "of another": issuer.token(iss="https://evil.example.org"),
        "never ends": issuer.token(exp=None),
        "signed by another": issuer.token(key=other),
        "signed with the public key": issuer.token(key=public * 2, algorithm="HS256"),
        "unsigned": f"{unsigned}.",
        "unknown key": issuer.token("z", key=other),
        "nonsense": "a.b.c",
        "no token": "abc",
    }
    assert dict(
        zip(wrong, asked(guard_of(issuer), *(f"Bearer {token}" for token in wrong.values())), strict=True)
    ) == dict.fromkeys(wrong, 401)


@pytest.mark.parametrize(
    ("require", "claims", "status"),
    [
        ({"scope": "predict"}, {"scope": "watch predict"}, 0),
        ({"scope": "predict"}, {"scope": "predictor"}, 403),
        ({"groups": ["fish", "bird"]}, {"groups": ["bird"]}, 0),
        ({"groups": ["fish", "bird"]}, {"groups": ["birds"]}, 403),
        ({"realm_access.roles": "access:vo"}, {"realm_access": {"roles": ["access:vo"]}}, 0),
        ({"realm_access.roles": "access:vo"}, {"realm_access": "access:vo"}, 403),
        ({"sub": "ana", "scope": "predict"}, {"scope": "watch"}, 403),
        ({"level": "3"}, {"level": 3}, 0),
        ({"level": "3"}, {}, 403),
    ],
)
def test_claims_that_are_required(issuer, require, claims, status):
    assert asked(guard_of(issuer, require=require), f"Bearer {issuer.token(**claims)}") == [status]


def test_new_keys_are_learnt_but_strangers_make_no_load(issuer, monkeypatch):
    guard = guard_of(issuer)
    assert asked(guard, f"Bearer {issuer.token()}") == [0]
    before = issuer.asked
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert asked(guard, *(f"Bearer {issuer.token(f'z{number}', key=other)}" for number in range(50))) == [401] * 50
    assert issuer.asked == before
    issuer.keys["new"] = other
    monkeypatch.setattr("ai4sdk.serving.guard._LOOK_AGAIN", 0.0)
    guard = guard_of(issuer)
    assert asked(guard, f"Bearer {issuer.token()}", f"Bearer {issuer.token('new')}") == [0, 0]


def test_a_provider_that_does_not_answer_is_no_open_door(issuer):
    guard = guard_of(issuer)
    token = issuer.token()
    issuer.server.shutdown()
    issuer.server.server_close()
    assert asked(guard, f"Bearer {token}", "Bearer known") == [503, 0]


@pytest.fixture(scope="session")
def provider(tmp_path_factory):
    """A real OpenID provider."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed: apt-get install npm")
    folder = tmp_path_factory.mktemp("oidc")
    install = ["npm", "install", "--silent", "--no-audit", "oidc-provider@9"]
    if subprocess.run(install, cwd=folder, check=False, timeout=300).returncode != 0:
        pytest.skip("npm cannot install oidc-provider here")
    shutil.copy(Path(__file__).parent / "oidc" / "provider.mjs", folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(["node", "provider.mjs", str(port)], cwd=folder, stdout=subprocess.PIPE, text=True)
    assert "listening" in process.stdout.readline()
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait()


def token_from(provider, resource, scope="predict"):
    form = {"grant_type": "client_credentials", "client_id": "machine", "client_secret": "machines-secret"}
    data = urllib.parse.urlencode({**form, "resource": resource, "scope": scope}).encode()
    with urllib.request.urlopen(f"{provider}/token", data) as answer:
        return json.load(answer)["access_token"]


@pytest.mark.engine
@pytest.mark.slow
def test_a_real_providers_tokens(provider):
    guard = Guard([], Provider(Oidc(issuer=provider, audience=AUDIENCE, require={"scope": "predict"})))
    assert asked(
        guard,
        f"Bearer {token_from(provider, AUDIENCE)}",
        f"Bearer {token_from(provider, AUDIENCE, 'watch')}",
        f"Bearer {token_from(provider, 'urn:ai4sdk:bird')}",
        f"Bearer {token_from(provider, AUDIENCE)[:-4]}AAAA",
    ) == [0, 403, 401, 401]


@pytest.mark.engine
@pytest.mark.slow
def test_a_server_that_trusts_a_real_provider(provider, start, faulty):
    server = start(faulty, "--trust-code", f"++serving.oidc={{issuer: '{provider}', audience: '{AUDIENCE}'}}").ready()
    body = {"inputs": [[0.5, 1.0, 2.0, 3.0]]}
    assert server.ask("/predict", body).status == 401
    assert server.ask("/predict", body, Authorization=f"Bearer {token_from(provider, AUDIENCE)}").status == 200
    assert server.ask("/predict", body, Authorization=f"Bearer {token_from(provider, 'urn:ai4sdk:bird')}").status == 401
