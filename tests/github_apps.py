"""GitHub Apps in the stand-in: what they sign, where they are installed, and the tokens that they get for it.

https://docs.github.com/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-json-web-token-jwt-for-a-github-app
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import jwt

from tests import github_routes as look
from tests.github_model import FORMAT, App, Installation, Token
from tests.github_openapi import WHEN, description
from tests.github_routes import Answer, Call, Refused, route

STRENGTH = {"read": 1, "write": 2, "admin": 3}
LONGEST = 600
"""Seconds that what an App signs may hold at most."""
LIFETIME = timedelta(hours=1)


def app_of(apps: Mapping[str, App], signed: str) -> Token:
    """Whose JSON web token this is; every rule of GitHub's, in GitHub's words."""
    try:
        claims = jwt.decode(signed, options={"verify_signature": False})
        app = apps.get(str(claims["iss"]))
    except (jwt.InvalidTokenError, LookupError):
        raise Refused(401, "A JSON web token could not be decoded") from None
    if app is None:
        raise Refused(404, "Integration not found")
    try:
        jwt.decode(signed, app.public_key, algorithms=["RS256"], options={"verify_exp": False, "verify_iat": False})
    except jwt.InvalidTokenError:
        raise Refused(401, "A JSON web token could not be decoded") from None
    now = time.time()
    if not isinstance(claims.get("iat"), int) or claims["iat"] > now:
        raise Refused(401, "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued")
    if not isinstance(claims.get("exp"), int) or claims["exp"] <= now:
        words = "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires"
        raise Refused(401, words)
    if claims["exp"] > now + LONGEST:
        raise Refused(401, "'Expiration time' claim ('exp') is too far in the future")
    return Token(signed, f"{app.slug}[bot]", app, {}, is_app=True)


@route("GET", "/app", by_app=True)
def get_app(call: Call) -> Answer:
    """The App itself."""
    return 200, look.app(call.server, call.token.app)


@route("GET", "/repos/{owner}/{repo}/installation", by_app=True)
def get_installation(call: Call) -> Answer:
    """Where the App is installed, if it reaches that repository."""
    name = f"{call.parts['owner']}/{call.parts['repo']}"
    known = name.lower() in call.server.repositories
    found = next((one for one in call.server.installations if known and one.app == call.token.app and one.has(name)), None)
    if found is None:
        raise Refused(404, "Not Found")
    return 200, _installation(call, found)


@route("POST", "/app/installations/{installation_id}/access_tokens", by_app=True)
def create_access_token(call: Call) -> Answer:
    """A token that holds for an hour, for what was asked for and no more."""
    installed = [one for one in call.server.installations if one.app == call.token.app]
    found = next((one for one in installed if str(one.id) == call.parts["installation_id"]), None)
    if found is None:
        raise Refused(404, "Not Found")
    if found.suspended:
        raise Refused(403, "This installation has been suspended")
    body = call.body or {}
    asked = body.get("permissions", found.permissions)
    if any(STRENGTH[level] > STRENGTH.get(found.permissions.get(name, ""), 0) for name, level in asked.items()):
        raise Refused(422, "The permissions requested are not granted to this installation.")
    names = [f"{found.owner}/{name}".lower() for name in body.get("repositories", [])]
    if any(not found.has(name) or name not in call.server.repositories for name in names):
        raise Refused(422, "There is at least one repository that does not exist or is not accessible to the parent installation.")
    reached = frozenset(names) if names else frozenset(name for name in call.server.repositories if found.has(name))
    expires_at = datetime.now(timezone.utc).replace(microsecond=0) + LIFETIME
    value = f"ghs_{call.server.ids.next()}{'x' * 26}"
    permissions = {name.replace("_", "-"): level for name, level in asked.items()}
    call.server.tokens[value] = Token(value, f"{found.app.slug}[bot]", found.app, permissions, reached, expires_at)
    return 201, {
        "token": value,
        "expires_at": expires_at.strftime(FORMAT),
        "permissions": asked,
        "repository_selection": "selected" if names else "all",
        "repositories": [look.repository(call.server, call.server.repositories[name]) for name in sorted(reached)],
    }


def _installation(call: Call, one: Installation) -> dict[str, Any]:
    url = f"{call.server.api_url}/app/installations/{one.id}"
    known = {
        "id": one.id,
        "app_id": one.app.id,
        "app_slug": one.app.slug,
        "account": look.user(call.server, one.owner),
        "target_id": call.server.user_id(one.owner),
        "target_type": "Organization",
        "permissions": one.permissions,
        "events": [],
        "repository_selection": "all" if one.repositories is None else "selected",
        "access_tokens_url": f"{url}/access_tokens",
        "repositories_url": f"{call.server.api_url}/installation/repositories",
        "html_url": f"{call.server.url}/organizations/{one.owner}/settings/installations/{one.id}",
        "created_at": WHEN,
        "updated_at": WHEN,
        "suspended_at": WHEN if one.suspended else None,
        "suspended_by": None,
        "single_file_name": None,
    }
    return description().fill("installation", known, url)
