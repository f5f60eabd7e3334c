"""Four processes on Cloud TPU VMs find each other by the metadata servers of their machines, which are fakes here."""

import contextlib
import functools
import http.server
import os
import socket
import subprocess
import sys
import threading

import pytest

pytestmark = pytest.mark.slow

NUM_HOSTS = 4
# No chip is here, so the process is told that it is on a TPU VM, and that it may ask; it computes on its CPU.
HOST = """
import os
import jax
del os.environ["TPU_SKIP_MDS_QUERY"]
from jax.experimental import multihost_utils
from kaem_jax.app.devices.mesh import initialize
initialize()
everyone = multihost_utils.process_allgather(jax.numpy.array([jax.process_index()]))
print(jax.process_index(), jax.process_count(), everyone.ravel().tolist())
"""


@contextlib.contextmanager
def metadata_server(folder, number):
    """Gives what the metadata server of worker `number` does; yields its address."""
    attributes = folder / "computeMetadata" / "v1" / "instance" / "attributes"
    attributes.mkdir(parents=True)
    (attributes / "agent-worker-number").write_text(str(number))
    (attributes / "worker-network-endpoints").write_text(",".join(["localhost"] * NUM_HOSTS))
    (attributes / "tpu-env").write_text("ACCELERATOR_TYPE: 'v5litepod-16'")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_hosts_of_a_slice_find_each_other(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    direct = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    own = direct | {"JAX_FORCE_TPU_INIT": "1", "JAX_PLATFORMS": "cpu", "JAX_COORDINATOR_PORT": port}
    with contextlib.ExitStack() as servers:
        addresses = [servers.enter_context(metadata_server(tmp_path / str(i), i)) for i in range(NUM_HOSTS)]
        hosts = [
            subprocess.Popen([sys.executable, "-c", HOST], env=own | {"GCE_METADATA_IP": address},
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for address in addresses
        ]  # fmt: skip
        try:
            said = [host.communicate(timeout=240) for host in hosts]
        finally:
            for host in hosts:
                host.kill()
    for i, (out, err) in enumerate(said):
        assert out.splitlines()[-1:] == [f"{i} {NUM_HOSTS} {list(range(NUM_HOSTS))}"], err
