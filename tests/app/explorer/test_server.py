"""The server's answers against the session's, what it reads of files, and whom it does not answer."""

import dataclasses
import itertools
import json
import re

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from kaem_jax.app.data.folder import read_images, read_upload
from kaem_jax.app.explorer import server
from kaem_jax.app.explorer.session import Session
from kaem_jax.errors import ConfigError
from tests.app.explorer.conftest import clustered_session
from tests.browser import png

Z = [0.5, -1.25, 2.0]


def client_of(session):
    return TestClient(server.make_app(session), base_url="http://127.0.0.1:8700")


@pytest.fixture
def session():
    return clustered_session()


@pytest.fixture
def client(session):
    return client_of(session)


def test_answers_are_the_sessions(client, session):
    draw = {"seed": 7, "latent": Z, "locked": [False, True, False], "cluster": 1, "num": 3}
    for name, asked in (
        ("decode", {"latents": [Z, [0, 0, 0]]}),
        ("draw", draw),
        ("curves", {"cluster": 2}),
        ("path", {"first": Z, "second": [0, 0, 0]}),
        ("held_out", {"first": 350}),
    ):
        response = client.post(f"/api/{name}", json=asked)
        assert response.status_code == 200, response.text
        assert response.json() == getattr(session, name)(**asked)
    assert len(response.json()) == 10


def test_an_uploaded_image_is_padded_where_the_training_data_were(session, monkeypatch):
    data = dataclasses.replace(session.run.config.data, name="folder", path="x", fit="pad")
    config = dataclasses.replace(session.run.config, data=data)
    monkeypatch.setattr(Session, "read", lambda self, x: x.tolist())
    padded = client_of(dataclasses.replace(session, run=dataclasses.replace(session.run, config=config)))
    found = padded.post("/api/upload", content=png(np.full((40, 20), 255, np.uint8))).json()
    assert found == [[0, 0, 1, 1, 1, 1, 0, 0]] * 8


def test_an_upload_is_what_the_same_file_is_for_a_command(tmp_path, rng):
    """Also where its pixels are transparent in part, or a camera was held sideways."""
    orientation = Image.Exif()
    orientation[0x0112] = 8  # to be turned by 90 degrees against the clock
    content = png(rng.integers(0, 256, (20, 30, 4), dtype=np.uint8), exif=orientation)
    (tmp_path / "image.png").write_bytes(content)
    for fit, (channels, shape) in itertools.product(("crop", "pad"), (("rgb", (8, 8, 3)), ("grey", (8, 8)))):
        found, (expected,) = read_upload(content, shape, fit), read_images(str(tmp_path), 8, fit, channels)
        assert 0 < np.isnan(found).mean() < 1
        np.testing.assert_allclose(found, expected.reshape(shape), atol=1e-6)
    tall = np.arange(0, 120, 2, dtype=np.uint8).reshape(10, 6)
    np.testing.assert_allclose(read_upload(png(tall), (10, 6, 1))[..., 0], tall / 255, atol=1e-6)


def test_only_this_machine_is_answered(client):
    """Not a name that was made to point here (DNS rebinding), nor pages of others."""
    hosts = "evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "evil.example:127.0.0.1", "0.0.0.0"
    origins = "https://evil.example", "null", "http://localhost:9999", "http://localhost:8700"
    for status, headers in (
        *((400, {"host": host}) for host in hosts),
        *((403, {"origin": origin}) for origin in origins),
        *((403, {"sec-fetch-site": site}) for site in ("cross-site", "same-site")),
    ):
        assert client.post("/api/decode", json={"latents": [Z]}, headers=headers).status_code == status, headers
        assert client.get("/", headers=headers).status_code == status, headers
    for host in ("127.0.0.1:8700", "localhost:8700", "localhost"):
        own = {"host": host, "origin": f"http://{host}", "sec-fetch-site": "same-origin"}
        assert client.post("/api/decode", json={"latents": [Z]}, headers=own).status_code == 200
        page = client.get("/", headers={"host": host, "sec-fetch-site": "none"})
        assert page.status_code == 200
        assert not [name for name in page.headers if name.startswith("access-control")]


def test_nonsense_gets_one_sentence(client, capsys):
    for name, body, status, part in (
        ("decode", b"{", 400, "Expecting"),
        ("decode", b'{"latents": [[NaN, 1, 2]]}', 400, "finite"),
        ("curves", b'{"cluster": 9}', 400, "cluster=9"),
        ("upload", b"no image", 400, "this file cannot be read as an image"),
        ("decode", b"{}", 500, "TypeError"),
    ):
        response = client.post(f"/api/{name}", content=body)
        assert (response.status_code, part in response.json()["error"]) == (status, True), response.text
    assert "TypeError" in capsys.readouterr().err


def test_names_cannot_break_the_page(session):
    evil = "</script><img src=x onerror=alert(1)>'\""
    config = dataclasses.replace(session.run.config, name=evil)
    named = dataclasses.replace(session, workdir=evil, run=dataclasses.replace(session.run, config=config))
    page = client_of(named).get("/").text
    assert "<img src=x" not in page
    content = re.search(r'<script type="application/json" id="content">(.*?)</script>', page, re.DOTALL)[1]
    assert json.loads(content)["model"] == named.describe() | {"is_live": True}
    assert json.loads(content)["model"]["workdir"] == evil
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)


def test_a_port_that_is_taken_is_refused(refuses):
    with server.listen(0) as at:
        assert at.getsockname()[0] == "127.0.0.1"
        port = at.getsockname()[1]
        with refuses(ConfigError, f"--port={port}", "give another one"):
            server.listen(port)
