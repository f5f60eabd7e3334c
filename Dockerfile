# An image that trains, from the wheel in dist/:
#
#     python -m build --wheel && docker build --tag kaem:0.2.0 .                          # CPU
#     docker build --tag kaem:0.2.0 --build-arg 'JAX=jax[tpu]' .                          # or jax[cuda13]
#     docker run --rm --volume "$PWD/runs:/data" kaem:0.2.0 --config=digits --workdir=/data/digits
FROM python:3.13-slim
ARG JAX=jax
COPY dist/*.whl /wheels/
# The wheel says which versions it needs, of JAX too.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir "${JAX}" /wheels/*.whl
WORKDIR /data
ENTRYPOINT ["python", "-m", "kaem_jax.main"]
