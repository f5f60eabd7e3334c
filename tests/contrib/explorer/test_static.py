"""The page in one file holds what the session answers."""

import json
import re

import numpy as np
import pytest

from kaem_jax.contrib.explorer import open_session, static, write_static
from tests.contrib.explorer.conftest import UNLOCKED, clustered_session, small_run


def written(session, tmp_path):
    """The description and the data of the page, and its text."""
    size, page = write_static(tmp_path / "page.html", session), (tmp_path / "page.html").read_text()
    assert size == len(page.encode())
    content = json.loads(re.search(r'id="content">(.*?)</script>', page, re.DOTALL)[1])
    return content["model"], content["data"], page


def test_every_place_of_a_handle_has_its_picture(tmp_path):
    session = clustered_session()
    model, data, page = written(session, tmp_path)
    known = {tuple(picture["latent"]): picture for picture in data["moves"]}
    places = []
    for cluster in model["clusters"]:
        for latent in model["latents"]:
            assert latent["values"] == [float(str(v)) for v in session.axes.latent[latent["index"], ::8]]
            for value in latent["values"]:
                place = list(cluster["median"]["latent"])
                place[latent["index"]] = value
                places.append(place)
    assert len(places) == 4 * 3 * 21
    assert [known[tuple(place)] for place in places] == session.decode(places)
    assert len({json.dumps(view["draws"]) for view in data["views"].values()}) == 5
    assert data["views"]["2"]["draws"] == session.draw(0, [0, 0, 0], UNLOCKED, cluster=2, num=24)
    assert data["views"]["2"]["curves"] == session.curves(2)
    assert "3 of 3 latents and 4 of 4 clusters" in model["about"]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|fetch\(|<link (?!rel=\"icon\" href=\"data:,\")", page)
    assert "connect-src &#39;none&#39;" in page


def test_a_large_model_shows_fewer_clusters_and_latents(tmp_path, monkeypatch):
    monkeypatch.setattr(static, "_NUM_LATENTS", 2)
    monkeypatch.setattr(static, "_MAX_BYTES", 30_000)
    model, data, _ = written(clustered_session(), tmp_path)
    assert "2 of 3 latents and 3 of 4 clusters" in model["about"]
    assert [cluster["index"] for cluster in model["clusters"]] == [1, 3, 0]  # the heaviest
    assert (len(data["moves"]), set(data["views"])) == (3 * 2 * 21, {"all", "0", "1", "3"})


@pytest.mark.slow
def test_a_model_without_clusters_starts_at_its_medians(tmp_path):
    session = open_session(small_run(), "runs/a", None)
    model, data, _ = written(session, tmp_path)
    below = session.run.model.prior.cdf(session.table, np.float32(model["start"]["latent"]))
    np.testing.assert_allclose(below, 0.5, atol=0.08)  # of a thousand draws
    assert (model["clusters"], len(data["moves"]), set(data["views"])) == ([], 2 * 21, {"all"})
