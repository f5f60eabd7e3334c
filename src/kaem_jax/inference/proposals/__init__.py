"""References: tractable approximations q(z | x) of posteriors (docs/method.md, section 9)."""

from typing import Any

from kaem_jax.inference.proposals.base import FittedReference, Reference
from kaem_jax.inference.proposals.encoder_proposal import EncoderReference
from kaem_jax.inference.proposals.laplace import LaplaceReference
from kaem_jax.inference.proposals.prior_proposal import PriorReference
from kaem_jax.settings.arguments import check_choice

__all__ = [
    "REFERENCES",
    "EncoderReference",
    "FittedReference",
    "LaplaceReference",
    "PriorReference",
    "Reference",
    "make_reference",
]

REFERENCES: dict[str, type[Any]] = {
    "encoder": EncoderReference,
    "laplace": LaplaceReference,
    "prior": PriorReference,
}


def make_reference(kind: str, **settings: Any) -> Reference:
    """Builds a reference. It is static and hashable; `reference.fit(key, model, params, x)` gives q(z | x) of data.

    Args:
      kind: `prior`; `laplace` (modes of each posterior with their curvature); or `encoder` (one pass of a network).
      **settings: fields of `LaplaceReference` or `EncoderReference`, all optional except `encoder`.

    Raises:
      ValueError: `kind` or a setting is unknown, or a value is out of range.
    """
    check_choice("kind", kind, REFERENCES)
    try:
        return REFERENCES[kind](**settings)
    except TypeError as error:
        raise ValueError(f"kind={kind!r} does not take these settings: {error}") from None
