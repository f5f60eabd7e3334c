"""Priors: banks of univariate densities, exactly normalised and sampled by inverse transform."""

from kaem_jax.kan.bank import FunctionBank
from kaem_jax.kan.bases import Basis, make_basis
from kaem_jax.priors.base import Prior
from kaem_jax.priors.base_density import make_reference_density
from kaem_jax.priors.clustered import ClusteredPrior
from kaem_jax.priors.conditional import sample_given
from kaem_jax.priors.mixture import MixturePrior
from kaem_jax.priors.neural import NeuralPrior
from kaem_jax.priors.non_centred import ComonotonePrior, NonCentredPrior
from kaem_jax.priors.product import ProductPrior
from kaem_jax.settings.arguments import check_choice, check_integer, refuse_unused

__all__ = ["PARAMETERIZATIONS", "PRIOR_KINDS", "Prior", "make_prior", "sample_given"]

PRIOR_KINDS = ("clustered", "comonotone", "mixture", "neural", "product")
PARAMETERIZATIONS = ("centred", "non_centred")
_OF_BANK = (
    "inner", "basis", "degree", "reference", "domain", "grid_size", "base_activation", "coefficient_scale", "base_scale"
)  # fmt: skip
_OPTIONS: dict[str, tuple[str, ...]] = {
    "clustered": (*_OF_BANK, "proportions", "num_classes", "mixing"),
    "comonotone": _OF_BANK,
    "mixture": (*_OF_BANK, "parameterization", "proportions"),
    "neural": ("base_activation", "hidden", "num_steps", "step_size"),
    "product": (*_OF_BANK, "parameterization"),
}


def make_prior(
    kind: str,
    *,
    outer: int,
    inner: int = 1,
    basis: Basis | str = "b_spline",
    degree: int | None = None,
    reference: str = "gaussian",
    domain: tuple[float, float] = (-3.0, 3.0),
    grid_size: int = 20,
    base_activation: str = "silu",
    coefficient_scale: float = 0.1,
    base_scale: float = 0.1,
    proportions: str = "uniform",
    num_classes: int = 0,
    mixing: str = "none",
    parameterization: str = "centred",
    hidden: tuple[int, ...] = (200, 200),
    num_steps: int = 60,
    step_size: float = 0.08,
) -> Prior:
    """Builds a prior. It is static and hashable; its arrays come from `prior.init(key)`.

    Args:
      kind: `product` (latents [Q, P], all independent), `mixture` (latents [Q], P components each), `clustered`
        (latents [Q]; a mixture of P products. Clusters that start alike stay alike: give it base_activation="identity"
        and base_scale=0.7 or so) or `comonotone` (one uniform variable for each p determines all q; latents [P],
        always standard normal coordinates); or `neural` (latents [Q], an MLP energy on N(0, I): the baseline of Pang et
        al., neither normalised nor exactly sampled. Of the arguments below it uses `outer`, `base_activation`, which
        must not be `none`, and the last three).
      outer: Q, the number of generator inputs.
      inner: P, the number of components, of clusters, or of terms of the inner sum.
      basis: a registered name (`kaem_jax.settings.registry.BASES`), "module:Class" of your own, or an object.
      degree: 1 to 5, for families that have a degree, such as `b_spline`, whose default is 3.
      reference: `gaussian` (standard normal), `learnable_gaussian` (mean and deviation of every latent learned),
        `lognormal` (on the positive half-line), `uniform` or `flat` (both constant on the domain).
      domain: (low, high), the ends of the initial grid, and the support of a bounded reference. The other references
        have tails outside, where the energy is constant. It must lie above 0 for `lognormal`.
      grid_size: number of grid intervals.
      base_activation: a key of `kaem_jax.kan.activations.ACTIVATIONS`.
      coefficient_scale: standard deviation of the initial basis coefficients, in nats.
      base_scale: standard deviation of the initial base weights.
      proportions: of components or clusters, `uniform` or `learned`.
      num_classes: of a clustered prior, K classes to which its clusters belong, cluster c to class c mod K; K divides
        `inner`. 0: none.
      mixing: of a clustered prior, `learned`: the generator takes A z with a learned triangular matrix A, and an
        encoder's approximation is diagonal in A z (docs/method.md, section 14); or `none`.
      parameterization: `centred` (latents are z) or `non_centred` (latents are standard normal coordinates of the same
        shape, and the prior's parameters act through the quantile).
      hidden: widths of the hidden layers of a `neural` energy.
      num_steps, step_size: the Langevin chain that draws from a `neural` prior.

    Raises:
      ValueError: an argument is unknown, out of range, or contradicts another; the message names it.
    """
    given = locals()
    check_choice("kind", kind, PRIOR_KINDS)
    check_choice("parameterization", parameterization, PARAMETERIZATIONS)
    refuse_unused(make_prior, given, _OPTIONS)
    if kind == "neural":
        return NeuralPrior(outer, tuple(hidden), base_activation, num_steps, step_size)
    check_integer("grid_size", grid_size, low=1)
    if len(domain) != 2:
        raise ValueError(f"domain={domain} must be (low, high)")
    low, high = domain
    bank = FunctionBank(
        outer=outer,
        inner=inner,
        basis=make_basis(basis, **({} if degree is None else {"degree": degree})),
        base_activation=base_activation,
        num_intervals=grid_size,
        domain=(float(low), float(high)),
        shared_grid=kind in ("clustered", "mixture"),
        coefficient_scale=coefficient_scale,
        base_scale=base_scale,
    )
    density = make_reference_density(reference, bank.domain, bank.num_intervals)
    if kind == "clustered":
        return ClusteredPrior(bank, density, proportions, num_classes, mixing)
    if kind == "comonotone":
        return ComonotonePrior(ProductPrior(bank, density))
    centred = MixturePrior(bank, density, proportions) if kind == "mixture" else ProductPrior(bank, density)
    return centred if parameterization == "centred" else NonCentredPrior(centred)
