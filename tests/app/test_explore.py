"""`kaem explore` on a finished run, as a user starts it; tests/app/explorer has the page in a browser."""

import re
import subprocess
import sys
import urllib.request

import pytest

from kaem_jax.app import explorer
from kaem_jax.app.cli import explore


@pytest.mark.slow
def test_a_run_is_served_until_it_is_told_to_stop(finished):
    command = [sys.executable, "-m", "kaem_jax", "explore", "--workdir", str(finished[0]), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = re.match(r"(http://127\.0\.0\.1:\d+/) shows step 60", process.stdout.readline())[1]
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=600) as page:
                assert "</html>" in page.read().decode()
            process.terminate()
            assert process.wait(600) == 0
        finally:
            process.kill()


@pytest.mark.slow
def test_one_file_is_written_where_it_is_asked_for(finished, tmp_path, sentence, refused, monkeypatch):
    out = tmp_path / "page.html"
    code, line = sentence(explore.main, "--workdir", finished[0], "--static", out)
    assert code == 0
    assert re.search(r"step 60 in .*page.html, 0\.\d MB", line)
    assert "</html>" in out.read_text()
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "kaem_jax.app.explorer.server", raising=False)
    monkeypatch.delattr(explorer, "server", raising=False)  # where another test has imported it
    for flags, said in (
        (("--static", out), "--overwrite"),
        (("--static", tmp_path / "page.txt"), ".html"),
        ((), "error: kaem explore needs starlette and uvicorn: pip install -e '.[explore]' in the clone"),
    ):
        refused(said, explore.main, "--workdir", finished[0], *flags)
