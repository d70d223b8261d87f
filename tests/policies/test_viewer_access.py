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
    for origin in (None, f"http://127.0.0.1:{port}", f"HTTP://127.0.0.1:{port}"):
        assert scene(page, path_of(page), origin) > 1000, origin


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "[::1]", "LOCALHOST"])
def test_every_name_of_this_machine_serves_its_own_origin_and_no_other_port_or_name(page, host):
    """A server on another port, or under another name, may belong to another user of the machine."""
    access, path, port = page._access, f"{path_of(page)}/", page.server.get_port()
    assert access.refusal(path, [f"{host}:{port}"], [f"http://{host.lower()}:{port}"]) == ""
    for origin in (f"http://{host}:{port + 1}", f"http://{host}", f"http://{host}:80", f"http://other:{port}"):
        assert "must not use this viewer" in access.refusal(path, [f"{host}:{port}"], [origin.lower()]), origin


def test_a_tunnel_and_a_proxy_that_keep_the_name_of_the_page_are_served(page):
    """ssh -L 9000:localhost:8080 gives both headers port 9000; a proxy with HTTPS leaves out the port."""
    access, path = page._access, f"{path_of(page)}/"
    assert access.refusal(path, ["localhost:9000"], ["http://localhost:9000"]) == ""
    assert Access("secret").refusal("/secret/", ["robot.example"], ["https://robot.example"]) == ""


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]"])
def test_a_page_of_another_server_of_this_machine_is_refused(page, name):
    port = page.server.get_port()
    for origin in (f"http://{name}:{port - 1}", f"http://{name}", f"https://{name}:1"):
        assert scene(page, path_of(page), origin) == 403, origin


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
