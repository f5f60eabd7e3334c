"""`kaem explore` on a finished run, as a user starts it; tests/app/explorer has the page in a browser."""

import re
import webbrowser

import pytest

from kaem_jax.app.cli import explore


@pytest.mark.slow
def test_the_page_is_written_where_it_is_asked_for_and_opened(finished, tmp_path, sentence, refused, monkeypatch):
    opened, out = [], tmp_path / "page.html"
    monkeypatch.setattr(webbrowser, "open", opened.append)
    code, line = sentence(explore.main, "--workdir", finished[0], "--out", out)
    assert code == 0
    assert re.search(r"step 60 in .*page.html, 0\.\d MB", line)
    assert "</html>" in out.read_text()
    for flags, said in ((("--out", out), "--overwrite"), (("--out", tmp_path / "page.txt"), ".html")):
        refused(said, explore.main, "--workdir", finished[0], *flags)
    assert sentence(explore.main, "--workdir", finished[0], "--out", out, "--overwrite", "--no_browser")[0] == 0
    assert opened == [out.as_uri()]
