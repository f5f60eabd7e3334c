"""Classes by name, which users may extend. An entry is a class, or its "package.module:name", imported when needed."""

import difflib
import pkgutil
from collections.abc import Iterable, Iterator
from typing import Any

from kaem_jax.errors import first_line


class Registry:
    """Classes by name.

    Args:
      what: the word for an entry in messages.
      base: "module:Class", the base class of all entries; None for no check.
      **entries: name to class, or to its "package.module:name".
    """

    def __init__(self, what: str, base: str | None = None, **entries: Any):
        self.what, self._base = what, base
        self._entries = dict(entries)

    def register(self, name: str, entry: Any) -> None:
        """Adds `entry` as `name`; it may replace an earlier class of the same module and name, as in a notebook.

        Raises:
          ValueError: the name is taken by another entry, or is not an identifier.
        """
        if not name.isidentifier():
            raise ValueError(f"{self.what} name {name!r} must be an identifier, such as 'my_{self.what}'")
        if name in self._entries and _address(self._entries[name]) != _address(entry):
            raise ValueError(f"{self.what} {name!r} exists already; choose another name")
        self._entries[name] = entry

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def get(self, name: Any) -> Any:
        """The class `name`, imported if necessary; "module:name" imports one that is not registered.

        Raises:
          ValueError: the name is unknown, cannot be imported, or belongs to a class of another kind.
        """
        is_address = isinstance(name, str) and name.count(":") == 1 and not name.startswith(":")
        if not is_address and not (isinstance(name, str) and name in self._entries):
            raise ValueError(
                f"{self.what}={name!r} is not known; {near_name(name, self)}; your own {self.what}: 'module:Class'"
            )
        entry = self._entries.get(name, name)
        try:
            entry = pkgutil.resolve_name(entry) if isinstance(entry, str) else entry
        except Exception as error:  # a user's own module may raise anything
            raise ValueError(f"{self.what}={name!r} cannot be imported: {first_line(error)}") from None
        base = pkgutil.resolve_name(self._base) if self._base else object
        if not (isinstance(entry, type) and issubclass(entry, base)):
            raise ValueError(f"{self.what}={name!r} is not a subclass of {self._base or 'anything'}")
        return entry

    def name_of(self, cls: type) -> str:
        """The name of a class, or its "module:name" if it is not registered."""
        return next((name for name, entry in self._entries.items() if _address(entry) == _address(cls)), _address(cls))


def near_name(name: str, allowed: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest one, or all."""
    allowed = list(allowed)
    near = difflib.get_close_matches(str(name), allowed, n=1)
    return f"did you mean {near[0]!r}?" if near else f"allowed: {', '.join(allowed) or 'none'}"


def _address(entry: Any) -> Any:
    return f"{entry.__module__}:{entry.__qualname__}" if isinstance(entry, type) else entry


BASES = Registry(
    "basis",
    "kaem_jax.kan.bases:Basis",
    b_spline="kaem_jax.kan.bases.b_spline:BSpline",
    chebyshev="kaem_jax.kan.bases.trigonometric:Chebyshev",
    dog="kaem_jax.kan.bases.wavelets:DerivativeOfGaussian",
    fourier="kaem_jax.kan.bases.trigonometric:Fourier",
    mexican_hat="kaem_jax.kan.bases.wavelets:MexicanHat",
    morlet="kaem_jax.kan.bases.wavelets:Morlet",
    rbf="kaem_jax.kan.bases.rbf:RadialBasis",
    rswaf="kaem_jax.kan.bases.rbf:ReflectionalSwitch",
    shannon="kaem_jax.kan.bases.wavelets:Shannon",
)
KERNELS = Registry(
    "kernel",
    "kaem_jax.mcmc.kernels:Kernel",
    hmc="kaem_jax.mcmc.kernels:HMC",
    mala="kaem_jax.mcmc.kernels:MALA",
    ula="kaem_jax.mcmc.kernels:ULA",
)
PRIORS = Registry(
    "prior",
    clustered="kaem_jax.priors.clustered:ClusteredPrior",
    comonotone="kaem_jax.priors.comonotone:ComonotonePrior",
    mixture="kaem_jax.priors.tabulated:MixturePrior",
    neural="kaem_jax.priors.neural:NeuralPrior",
    product="kaem_jax.priors.tabulated:ProductPrior",
)
DECODERS = Registry(
    "decoder",
    conv="kaem_jax.networks.conv:ConvDecoder",
    kan="kaem_jax.networks.kan:KAN",
    mlp="kaem_jax.networks.mlp:MLP",
    sequence="kaem_jax.networks.sequence:SequenceDecoder",
)
ENCODERS = Registry(
    "encoder",
    conv="kaem_jax.networks.conv:ConvEncoder",
    mlp="kaem_jax.networks.mlp:MLP",
    sequence="kaem_jax.networks.sequence:SequenceEncoder",
)
LIKELIHOODS = Registry(
    "likelihood",
    bernoulli="kaem_jax.likelihoods.discrete:Bernoulli",
    categorical="kaem_jax.likelihoods.discrete:Categorical",
    columns="kaem_jax.likelihoods.columns:Columns",
    discretized_logistic="kaem_jax.likelihoods.scaled:DiscretizedLogistic",
    gaussian="kaem_jax.likelihoods.scaled:Gaussian",
)
SAMPLERS = Registry(
    "posterior",
    "kaem_jax.inference.samplers.base:Sampler",
    importance="kaem_jax.inference.samplers.importance_sampler:Importance",
    langevin="kaem_jax.inference.samplers.chains:Langevin",
    particles="kaem_jax.inference.samplers.particles:Particles",
    tempered="kaem_jax.inference.samplers.tempered_sampler:Tempered",
    variational="kaem_jax.inference.samplers.variational_sampler:Variational",
)
PROPOSALS = Registry(
    "proposal",
    encoder="kaem_jax.inference.proposals.encoder_proposal:EncoderProposal",
    laplace="kaem_jax.inference.proposals.laplace:Laplace",
    prior="kaem_jax.inference.proposals.base:PriorProposal",
)
ESTIMATORS = Registry(
    "estimator",
    ais="kaem_jax.inference.evidence.estimators:AIS",
    auto="kaem_jax.inference.evidence.estimators:Auto",
    importance="kaem_jax.inference.evidence.estimators:ImportanceEstimator",
)


register_basis, register_kernel = BASES.register, KERNELS.register
