"""What a client of a service raises (model hubs, object stores, trackers, servers of the job's own) → a cause.

Only who speaks with a service says what it answered: any other exception that quotes such words is the program's.
"""

from __future__ import annotations

import re

# Libraries whose exceptions say that a server was not reached, and what those are called.
_CLIENTS = frozenset({"aiohttp", "botocore", "http", "httpcore", "httpx", "requests", "ssl", "urllib", "urllib3"})
_UNREACHED = frozenset(
    {
        "ConnectionError",
        "ConnectError",
        "ConnectTimeout",
        "ConnectTimeoutError",
        "ReadError",
        "ReadTimeout",
        "ReadTimeoutError",
        "WriteError",
    }
    | {"Timeout", "ProxyError", "ProxyConnectionError", "SSLError", "ProtocolError", "RemoteProtocolError", "ChunkedEncodingError"}
    | {"MaxRetryError", "NewConnectionError", "NameResolutionError", "IncompleteRead", "RemoteDisconnected", "EndpointConnectionError"}
    | {"ConnectionClosedError", "ServerDisconnectedError", "ServerTimeoutError", "ClientConnectorError", "ClientConnectorDNSError"}
    | {"ClientConnectorCertificateError", "ClientPayloadError", "ClientOSError", "SSLCertVerificationError", "SSLEOFError", "URLError"}
)
_LOOPBACK = re.compile(r".{0,400}(?:https?://|host='|Cannot connect to host )(?:localhost|127\.\d|\[::1\]|::1\b|0\.0\.0\.0)")

_HTTP = frozenset({"HTTPError", "HfHubHTTPError", "HTTPStatusError", "ClientResponseError", "ServerError", "RetryError"})
_FAILED = re.compile(
    r".{0,200}(?:50[0234] Server Error|429 Client Error|Too Many Requests)"
    r"|Server error '50[0234] |Client error '429 |HTTP Error (?:429|50[0234]): "
)
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, as botocore writes them.
_STORE = r"An error occurred \((?:{}|{})\) when calling the \w{{1,60}} operation"
_STORE_FAILED = re.compile(_STORE.format("SlowDown|ServiceUnavailable|InternalError|RequestTimeout|Throttling", "429|50[0234]"))
_STORE_REFUSED = re.compile(_STORE.format("AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken", "40[13]"))
# By the library and the class, whatever the message is.
_BY_CLASS = {
    "azure.ClientAuthenticationError": "access",
    "azure.ServiceRequestError": "unreachable",
    "azure.ServiceResponseError": "unreachable",
    "botocore.NoCredentialsError": "access",
    "google.BadGateway": "service",
    "google.DefaultCredentialsError": "access",
    "google.Forbidden": "access",
    "google.GatewayTimeout": "service",
    "google.InternalServerError": "service",
    "google.RefreshError": "access",
    "google.ServiceUnavailable": "service",
    "google.TooManyRequests": "service",
    "google.Unauthorized": "access",
    "wandb.AuthenticationError": "access",
}
_NO_KEY = re.compile(r"api_key not configured \(no-tty\)")
# hf_xet: https://github.com/huggingface/xet-core; a download that broke off: https://github.com/huggingface/huggingface_hub.
_BROKE_OFF = re.compile(r"Data processing error: CAS service error|Consistency check failed: file should be of size \d+ but has size \d+")
# https://docs.python.org/3/library/socket.html#socket.gaierror, and who passes it on.
_RESOLVERS = frozenset({"gaierror", "OSError", "ConnectionError", "URLError", "CommError", "DistNetworkError", "LocalEntryNotFoundError"})
_NO_RESOLVER = re.compile(r".{0,600}(?:Temporary failure in name resolution|\[Errno -3\])")
_GAI = re.compile(r".{0,400}\(gai error: -3 ")


def of_client(name: str, message: str) -> str | None:
    """The cause's name, by the exception's name (with modules) and its message; None where it is none of a service's."""
    root, own = name.partition(".")[0], name.rpartition(".")[2]
    is_client = root in _CLIENTS
    if (_NO_RESOLVER.match(message) and (is_client or own in _RESOLVERS)) or _GAI.match(message):
        return "name-resolution"
    if own in _HTTP and _FAILED.match(message):
        return "own-service" if _LOOPBACK.match(message) else "service"
    if root == "botocore" and _STORE_FAILED.match(message):
        return "service"
    if (root == "botocore" and _STORE_REFUSED.match(message)) or (root == "wandb" and _NO_KEY.match(message)):
        return "access"
    if is_client and own in _UNREACHED and _LOOPBACK.match(message):
        return "own-service"
    return _BY_CLASS.get(f"{root}.{own}")


def unreached(name: str, message: str) -> bool:
    """Whether a client says by its exception's name that a server was not reached or did not go on, or that a download broke off."""
    root, own = name.partition(".")[0], name.rpartition(".")[2]
    return (root in _CLIENTS and own in _UNREACHED) or (name in ("RuntimeError", "OSError") and _BROKE_OFF.match(message) is not None)
