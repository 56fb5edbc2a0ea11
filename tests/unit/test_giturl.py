"""Addresses of repositories and submodules: which are read, how relative ones resolve, which are refused, who gets the token."""

from __future__ import annotations

import pytest

from dispatcher.giturl import may_have_token, parse_url, submodule_url


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://github.com/o/r", "https://github.com/o/r"),
        ("https://u:p@github.com:8443/o/r.git", "https://github.com:8443/o/r.git"),
        ("HTTPS://github.com/o/r", "https://github.com/o/r"),
        ("ssh://git@host:2222/o/r", "ssh://git@host:2222/o/r"),
        ("git@github.com:o/r.git", "git@github.com:o/r.git"),
        ("http://[::1]:80/o/r", "http://[::1]:80/o/r"),
        ("/srv/r", "/srv/r"),
        ("file:///srv/r", "/srv/r"),
    ],
)
def test_an_address_is_read(text: str, shown: str) -> None:
    assert str(parse_url(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "r",
        "../r",
        "ext::sh -c x",
        "git://h/r",
        "ftp://h/r",
        "-x:y",
        "--upload-pack=x",
        "https:///r",
        "https://h",
        "https://h/",
        "https://h/\nx",
        "https://-h/r",
        "ssh://-oProxyCommand=x/r",
        "ssh://-l@h/r",
        "-oX@h:r",
        "h:-r",
        "h::r",
        "https://h:port/r",
        "https://h h/r",
        "file://h/r",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="address"):
        parse_url(text)


@pytest.mark.parametrize(
    ("parent", "declared", "url"),
    [
        ("https://h/o/main.git", "../lib.git", "https://h/o/lib.git"),
        ("https://h/o/main/", "../../p/lib", "https://h/p/lib"),
        ("https://h/o/main", "./sub", "https://h/o/main/sub"),
        ("git@h:o/main", "../lib", "git@h:o/lib"),
        ("ssh://git@h/o/main", "../lib", "ssh://git@h/o/lib"),
        ("/srv/main", "../lib", "/srv/lib"),
        ("https://h/o/main", "git@h:p/lib.git", "https://h/p/lib.git"),
        ("https://h:8443/o/main", "ssh://git@H:22/p/lib", "https://h:8443/p/lib"),
        ("https://h/o/main", "https://u:p@other/x", "https://other/x"),
        ("/srv/main", "https://other/x", "https://other/x"),
        ("/srv/main", "/srv/x", "/srv/x"),
        ("http://127.0.0.1:1/m", "http://127.0.0.1:1/x", "http://127.0.0.1:1/x"),
        ("git@h:o/main", "ssh://git@h/x", "ssh://git@h/x"),
        ("git@h:o/main", "https://other/x", "https://other/x"),
    ],
)
def test_a_submodules_address_is_seen_from_its_parent(parent: str, declared: str, url: str) -> None:
    assert str(submodule_url(parse_url(parent), declared)) == url


@pytest.mark.parametrize(
    ("parent", "declared"),
    [
        ("https://h/o/main", "git@other:p/lib"),
        ("https://h/o/main", "ssh://other/p/lib"),
        ("https://h/o/main", "http://h/p/lib"),
        ("http://127.0.0.1:1/m", "http://127.0.0.1:2/x"),
        ("https://h/o/main", "/etc"),
        ("https://h/o/main", "file:///etc"),
        ("git@h:o/main", "git@other:x"),
        ("git@h:o/main", "/etc"),
        ("https://h/main", "../../x/.."),
        ("https://h/o/main", "../.."),
        ("https://h/o/main", "../l\nib"),
        ("git@h:main", "../-x"),
    ],
)
def test_a_submodule_cannot_lead_where_its_parent_is_not(parent: str, declared: str) -> None:
    with pytest.raises(ValueError, match="address"):
        submodule_url(parse_url(parent), declared)


@pytest.mark.parametrize(
    ("url", "root", "allowed"),
    [
        ("https://h/x", "https://h/o/r", True),
        ("https://H/x", "https://h/o/r", True),
        ("https://other/x", "https://h/o/r", False),
        ("https://h.evil/x", "https://h/o/r", False),
        ("https://h:444/x", "https://h/o/r", False),
        ("http://h/x", "http://h/o/r", False),
        ("http://h/x", "https://h/o/r", False),
        ("http://127.0.0.1:1/x", "http://127.0.0.1:1/r", True),
        ("http://127.0.0.1:2/x", "http://127.0.0.1:1/r", False),
        ("ssh://h/x", "ssh://h/r", False),
    ],
)
def test_the_token_goes_to_its_own_host_only(url: str, root: str, allowed: bool) -> None:
    assert may_have_token(parse_url(url), parse_url(root)) is allowed
