"""Who may use the viewer's page: real requests and websockets of its own page, of others, with and without token."""

import http.client
from urllib.parse import urlsplit

import pytest

pytest.importorskip("viser", reason="needs the extra `viz`")

import viser
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from dexgrasp.policies.viewer.access import Access, is_loopback
from dexgrasp.policies.viewer.page import Page, _guarded

PROTOCOL = [f"viser-v{viser.__version__}"]


@pytest.fixture(scope="module", params=["127.0.0.1", "0.0.0.0"])
def page(request):
    with Page(request.param, 0) as page:
        page.rebuild("policy")
        yield page


@pytest.fixture
def network_page():
    """A page that other machines reach."""
    with Page("0.0.0.0", 0) as page:
        page.rebuild("policy")
        yield page


def get(page, path, host=None):
    """The status and the text of a plain request."""
    connection = http.client.HTTPConnection("127.0.0.1", page.server.get_port(), timeout=10)
    connection.putrequest("GET", path, skip_host=True)
    connection.putheader("Host", host or f"localhost:{page.server.get_port()}")
    connection.endheaders()
    try:
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


def scene(page, path, origin=None, headers=None):
    """The first bytes that a websocket receives, or the status with which it is refused."""
    address = f"ws://127.0.0.1:{page.server.get_port()}{path}"
    try:
        with connect(
            address, origin=origin, subprotocols=PROTOCOL, additional_headers=headers, max_size=None
        ) as socket:
            return len(socket.recv(timeout=10))
    except InvalidStatus as error:
        return error.response.status_code


def path_of(page):
    """The path to which the page connects: that of its address without the last stroke."""
    return urlsplit(page.url).path.rstrip("/")


def test_the_own_page_is_served_and_connects(page):
    status, text = get(page, urlsplit(page.url).path or "/")
    assert status == 200 and "<title>Viser</title>" in text
    port = page.server.get_port()
    for origin in (None, f"http://localhost:{port}", f"http://127.0.0.1:{port}", f"http://[::1]:{port}"):
        assert scene(page, path_of(page), origin) > 1000, origin


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "https://evil.example:8080",
        "null",
        "file://",
        "http://localhost.evil.example",
        "http://evil.example/localhost",
        "http://localhost@evil.example",
        "http://127.0.0.1.evil.example",
        "http://[::1",
        "",
    ],
)
def test_a_page_of_anybody_else_is_refused(page, origin):
    assert scene(page, path_of(page), headers={"Origin": origin}) == 403


def test_the_page_of_a_name_that_points_here_is_refused_on_loopback_and_needs_the_token_else(page):
    port = page.server.get_port()
    status, _ = get(page, "/", host=f"evil.example:{port}")  # after a change of its DNS entry
    assert status == 403


def test_without_the_right_token_nothing_is_served(network_page):
    page, token = network_page, network_page._access.token
    for path in (
        "/",
        "",
        f"/{token[:-1]}",
        f"/{token}x",
        f"//{token}",
        f"/?token={token}",
        f"/x/{token}",
        f"/%2e/{token}",
    ):
        status, text = get(page, path or "/")
        assert status == 403 and "with its token" in text and token not in text, path
        assert scene(page, path) == 403, path
    for path in (f"/{token}", f"/{token}/", f"/{token}/?darkMode", f"/{token}?darkMode"):
        assert get(page, path)[0] == 200
        assert scene(page, path) > 1000
    assert get(page, f"/{token}/../../etc/passwd")[0] != 200


def test_every_server_has_a_token_of_its_own():
    tokens = {Access.of("0.0.0.0").token for _ in range(20)}
    assert len(tokens) == 20 and min(map(len, tokens)) >= 22
    for host in ("", "192.168.1.5", "robot.local", "::", "127.0.0.1.evil.example"):
        assert Access.of(host).token
    for host in ("127.0.0.1", "127.8.8.8", "localhost", "::1"):
        assert is_loopback(host) and not Access.of(host).token


def test_a_viser_that_starts_another_server_is_refused():
    with pytest.raises(RuntimeError, match="cannot be guarded"), _guarded(Access.of("127.0.0.1")):
        pass
    from websockets.asyncio import server

    assert server.serve.__module__ == "websockets.asyncio.server"
