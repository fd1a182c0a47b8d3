"""One HTTP exchange over a connection whose address was checked before anything was sent.

`http.client` alone would resolve the name a second time when it connects, and a name server that
answers differently then would lead past the check. Proxy variables are ignored for the same reason.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
from dataclasses import dataclass
from typing import Iterable, Iterator, Mapping, Sequence, Union
from urllib.parse import quote, urlsplit

from .limits import Limits

BLOCK = 256 * 1024
#: How long to look for bytes after the promised end of a body, when the server does not close.
SURPLUS_S = 1.0
DEFAULT_PORTS = {"http": 80, "https": 443}
TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class NetError(Exception):
    """The exchange failed; `transient` says whether another attempt may end better."""

    def __init__(self, message: str, *, transient: bool = True) -> None:
        super().__init__(message)
        self.transient = transient


class ForbiddenAddress(NetError):
    """The name leads to a network that inputs must not come from."""

    def __init__(self, message: str) -> None:
        super().__init__(message, transient=False)


@dataclass(frozen=True)
class Origin:
    """Who a secret belongs to: it is sent to no other scheme, host or port."""

    scheme: str
    host: str
    port: int


@dataclass(frozen=True)
class Target:
    origin: Origin
    path: str

    def __str__(self) -> str:
        """Without the query, which may hold a signature or a key."""
        host = f"[{self.origin.host}]" if ":" in self.origin.host else self.origin.host
        port = self.origin.port
        if port != DEFAULT_PORTS[self.origin.scheme]:
            host = f"{host}:{port}"
        path, query, _ = self.path.partition("?")
        return f"{self.origin.scheme}://{host}{path}{'?…' if query else ''}"


def parse_target(uri: str) -> Target:
    """Return where `uri` leads; raise ValueError with a reason that does not repeat it."""
    if any(character < " " or character == "\x7f" for character in uri):
        raise ValueError("it contains a control character")
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        raise ValueError("it is not a URL") from None
    scheme = parts.scheme.lower()
    if scheme not in DEFAULT_PORTS:
        raise ValueError(f"its scheme is {scheme[:20]!r}, not http or https")
    if not parts.hostname:
        raise ValueError("it has no host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("it holds a user name or password")
    path = quote(parts.path or "/", safe="/%:=&~+!$,;'@()*") + (
        "?" + quote(parts.query, safe="/%:=&~+!$,;'@()*?[]") if parts.query else ""
    )
    default = DEFAULT_PORTS[scheme]
    return Target(Origin(scheme, parts.hostname, default if port is None else port), path)


def meanings(address: Address) -> Iterator[Address]:
    """Yield `address` and every address that a packet to it may end at."""
    yield address
    if address.is_unspecified:  # Linux connects 0.0.0.0 and :: to itself
        yield ipaddress.IPv4Address("127.0.0.1")
        yield ipaddress.IPv6Address("::1")
    if isinstance(address, ipaddress.IPv6Address):
        embedded = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64:
            embedded.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        for inner in embedded:
            if inner is not None:
                yield from meanings(inner)


def is_forbidden(text: str, forbidden: Sequence[Network]) -> bool:
    """Tell whether the numeric address `text` lies in one of the networks."""
    address = ipaddress.ip_address(text.partition("%")[0])
    return any(
        meant.version == network.version and meant in network
        for meant in meanings(address)
        for network in forbidden
    )


class Answer:
    """A response whose head has arrived; close it."""

    def __init__(self, response: http.client.HTTPResponse, sock: socket.socket) -> None:
        self._response = response
        self._sock = sock
        self.status = response.status
        #: What Content-Length promises; None if nothing does.
        self.length: int | None = None if response.chunked else response.length
        promised = response.getheader("Content-Length")
        if self.length is None and promised is not None and not response.chunked:
            # Where the body ends would be a guess (RFC 9112, section 6.3).
            raise NetError("its Content-Length is no length")

    def __str__(self) -> str:
        words = "".join(c if c.isprintable() else "?" for c in self._response.reason)
        return f"{self.status} {words}"[:100].strip()

    def header(self, name: str) -> str | None:
        return self._response.getheader(name)

    def blocks(self) -> Iterator[bytes]:
        """Yield the body; raise NetError if it is shorter or longer than promised."""
        if self.length is None:
            while True:
                with network_errors():
                    block = self._response.read1(BLOCK)
                if not block:
                    return
                yield block
        left = self.length
        source = self._response.fp
        while left:
            with network_errors():
                block = source.read1(min(left, BLOCK))
            if not block:
                got = self.length - left
                raise NetError(f"{self.length} bytes were promised, {got} arrived")
            left -= len(block)
            yield block
        if self.status == http.client.OK and self._has_surplus():
            raise NetError(f"more than the promised {self.length} bytes arrived", transient=False)

    def text(self, limit: int) -> bytes:
        """Return at most `limit` bytes of the body."""
        got = b""
        for block in self.blocks():
            got += block
            if len(got) >= limit:
                break
        return got[:limit]

    def _has_surplus(self) -> bool:
        # We asked for `Connection: close`, so that this mostly sees the end at once.
        try:
            self._sock.settimeout(SURPLUS_S)
            return bool(self._response.fp.peek(1))
        except OSError:
            return False

    def close(self) -> None:
        self._response.close()
        self._sock.close()


@contextlib.contextmanager
def network_errors() -> Iterator[None]:
    """Turn what the network and `http.client` raise into NetError."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise NetError(
            f"its certificate is not trusted ({error.verify_message})", transient=False
        ) from None
    except socket.timeout:
        raise NetError("it stalled: nothing moved for too long") from None
    except http.client.IncompleteRead:
        raise NetError("the body ended before its last chunk") from None
    except http.client.RemoteDisconnected:
        raise NetError("it closed the connection without an answer") from None
    except http.client.HTTPException as error:
        raise NetError(f"it does not speak HTTP properly ({type(error).__name__})") from None
    except OSError as error:
        raise NetError(error.strerror or str(error) or type(error).__name__) from None


def exchange(
    target: Target,
    limits: Limits,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | Iterable[bytes] | None = None,
    forbidden: Sequence[Network] = (),
) -> Answer:
    """Send one request on its own connection; redirects are the caller's to follow.

    Raises:
        ForbiddenAddress: nothing was sent.
        NetError: anything else that is not an answer.
    """
    with network_errors():
        sock = _dial(target.origin, limits, forbidden)
    try:
        with network_errors():
            return Answer(_ask(target, sock, method, headers or {}, body), sock)
    except BaseException:
        sock.close()
        raise


def _ask(
    target: Target,
    sock: socket.socket,
    method: str,
    headers: Mapping[str, str],
    body: bytes | Iterable[bytes] | None,
) -> http.client.HTTPResponse:
    origin = target.origin
    secure = origin.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(origin.host, origin.port)
    connection.sock = sock
    connection.auto_open = 0  # it must never connect by itself, to an unchecked address
    every = {"Connection": "close", "User-Agent": "scale-steps", "Accept": "*/*"}
    try:
        connection.request(method, target.path, body=body, headers={**every, **headers})
    except (BrokenPipeError, ConnectionResetError):
        if body is None:
            raise
        # The server may have answered before it read all, and then stopped reading.
    return connection.getresponse()


def _dial(origin: Origin, limits: Limits, forbidden: Sequence[Network]) -> socket.socket:
    failure: OSError | None = None
    for family, address in _resolve(origin, forbidden):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(limits.connect_s)
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if origin.scheme == "https":
                context = ssl.create_default_context()
                sock = context.wrap_socket(sock, server_hostname=origin.host)
            sock.settimeout(limits.stall_s)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure or NetError("its name has no address", transient=False)


def _resolve(
    origin: Origin, forbidden: Sequence[Network]
) -> Sequence[tuple[socket.AddressFamily, tuple[object, ...]]]:
    """Return all addresses of a host; one that is forbidden forbids the host."""
    try:
        found = socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        again = error.errno == socket.EAI_AGAIN
        raise NetError(f"its name cannot be resolved ({error.strerror})", transient=again) from None
    except (UnicodeError, OverflowError):
        raise NetError("its host is not a name", transient=False) from None
    for *_, address in found:
        if is_forbidden(str(address[0]), forbidden):
            raise ForbiddenAddress(f"{address[0]} is in a network that inputs must not come from")
    return [(family, address) for family, _, _, _, address in found]
