"""An experiment: everything that defines a run, and the objects that its parts make together."""

import contextlib
import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Iterator
from typing import Any, TypeGuard

from kaem_jax.app.data.config import TABLES, TEXTS, DataSettings
from kaem_jax.app.devices.mesh import Parallel
from kaem_jax.errors import ConfigError
from kaem_jax.inference.evidence import Auto, Estimator
from kaem_jax.inference.proposals import EncoderProposal, Laplace, PriorProposal, Proposal
from kaem_jax.inference.samplers import ChainSampler, Importance, ProposalChains, Sampler, Variational
from kaem_jax.likelihoods import Categorical, Columns, Gaussian, Likelihood
from kaem_jax.model import Model
from kaem_jax.networks import MLP, Decoder, Network, SequenceDecoder
from kaem_jax.priors import ClusteredPrior, Prior
from kaem_jax.settings import Settings, setting
from kaem_jax.settings.registry import DECODERS, ESTIMATORS, LIKELIHOODS, PRIORS, PROPOSALS, SAMPLERS
from kaem_jax.training.optimizer import Optimizer
from kaem_jax.training.stage import Stage, stage_after


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(Settings):
    """Length of the first stage, which is the whole run unless there are `stages`.

    Attributes:
      num_steps: number of updates.
      log_every: updates between lines of metrics.jsonl.
      steps_per_call: largest number of updates per dispatch; the number used divides the length of the stage and
        `log_every`.
      refit: see `Stage`.
    """

    num_steps: int = setting(3000, low=1)
    log_every: int = setting(50, low=1)
    steps_per_call: int = setting(1, low=1)
    refit: bool = False

    def updates_a_call(self, stop: int, step: int = 0) -> int:
        """The number of updates per dispatch for a stage that ends at `stop` and continues after `step`."""
        whole = math.gcd(stop, self.log_every, step)
        return next(num for num in range(min(self.steps_per_call, whole), 0, -1) if whole % num == 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation(Settings):
    """How a run is evaluated on held-out data.

    Attributes:
      estimator: estimator of log p(x); its fields `final_*` are for the last evaluation.
      proposal: proposal from which estimates and posterior draws start; `kind=encoder` takes the posterior's encoder.
      every_steps: updates between evaluations.
      num_data: number of held-out data in evaluations during training.
      final: whether a last evaluation takes all of `data.num_held_out`, with the efforts `final_*` of the estimator.
      num_reconstructions: number of held-out data that are reconstructed by posterior means.
      posterior_steps: steps of the chains behind these means. Chains start at the proposal; if that is the prior, the
        sampler of training is used.
      posterior_chains: C, chains per datum. The Monte Carlo variance of a mean is about 1 / C of the posterior's.
      features: features by which images are compared.
    """

    estimator: Estimator = setting(Auto(), kinds=ESTIMATORS)
    proposal: Proposal = setting(Laplace(), kinds=PROPOSALS)
    every_steps: int = setting(500, low=1)
    num_data: int = setting(200, low=1)
    final: bool = True
    num_reconstructions: int = setting(200, low=1)
    posterior_steps: int = setting(100, low=1)
    posterior_chains: int = setting(8, low=1)
    features: str = "classifier"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpointing(Settings):
    """Which checkpoints are kept.

    Attributes:
      every_steps: updates between checkpoints.
      keep_last: number of newest checkpoints to keep.
      keep_best: number of best checkpoints to keep, by held-out log-likelihood.
    """

    every_steps: int = setting(500, low=1)
    keep_last: int = setting(2, low=1)
    keep_best: int = setting(1, low=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment(Settings):
    """Everything that defines a run.

    Attributes:
      name: name of the run's folder, if no folder is given.
      seed: seed of the random numbers of training and of evaluations during it.
      data: the data set.
      prior: p(z).
      decoder: the network from features to data.
      likelihood: p(x | output).
      posterior: how latents of data are drawn in training, in the first stage.
      optimizer: Adam, in the first stage.
      parallel: layout of the devices.
      train: length of the first stage.
      stages: later stages, each a `Stage`.
      evaluation: how the run is evaluated on held-out data.
      checkpoint: which checkpoints are kept.

    Raises:
      ValueError: two parts contradict each other; the message names the fields and a way out.
    """

    name: str = "kaem"
    seed: int = setting(0, low=0, high=2**32 - 1)
    data: DataSettings = DataSettings()
    prior: Prior = setting(ClusteredPrior(num_latents=8), kinds=PRIORS)
    decoder: Network | Decoder = setting(MLP(), kinds=DECODERS)
    likelihood: Likelihood = setting(Gaussian(), kinds=LIKELIHOODS)
    posterior: Sampler = setting(Importance(), kinds=SAMPLERS)
    optimizer: Optimizer = Optimizer()
    parallel: Parallel = Parallel()
    train: Train = Train()
    stages: tuple[Stage, ...] = ()
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpointing = Checkpointing()

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_intervals()
        self._check_data()
        self._check_evaluation()
        paths = ("", *(f"stages.{i}." for i in range(len(self.stages))))  # of the names of settings
        for path, stage in zip(paths, self.all_stages, strict=True):
            self._check_stage(path, stage)

    @functools.cached_property
    def all_stages(self) -> tuple[Stage, ...]:
        """The stages of the run; the first has the settings `posterior`, `optimizer` and `train`."""
        first = Stage(
            num_steps=self.train.num_steps, posterior=self.posterior, optimizer=self.optimizer, refit=self.train.refit
        )
        return (first, *self.stages)

    @property
    def num_steps(self) -> int:
        return sum(stage.num_steps for stage in self.all_stages)

    @property
    def num_rungs(self) -> int:
        return max(stage.posterior.num_rungs for stage in self.all_stages)

    @property
    def encoder(self) -> Any:
        """The encoder of the first stage that has one, else None."""
        encoders = (stage.posterior.encoder for stage in self.all_stages)
        return next((encoder for encoder in encoders if encoder is not None), None)

    def stage_of(self, step: int) -> tuple[Stage, int]:
        """The stage to which update number `step` belongs (the first for 0), and the number of updates before it."""
        index, first_step = stage_after(self.all_stages, step)
        return self.all_stages[index], first_step

    def model(self, data_shape: tuple[int, ...]) -> Model:
        """The model for data of this shape; a ConfigError says which parts do not fit together."""
        with naming("decoder"):
            model = Model(self.prior, self.decoder, self.likelihood, tuple(data_shape))
        with naming("posterior.encoder"):
            if self.encoder is not None:
                model.bind_encoder(self.encoder)
        return model

    def proposal(self, may_miss: bool = False) -> Proposal:
        """The proposal of evaluation, with its encoder, unless values may be missing, which an encoder reads as 0."""
        proposal = self.evaluation.proposal
        if not _reads_data(proposal):
            return proposal
        return Laplace() if may_miss else dataclasses.replace(proposal, encoder=proposal.encoder or self.encoder)

    def inference_proposal(self, may_miss: bool) -> Proposal:
        """The proposal for a user's data. It is never the prior, whose draws seldom fit a single datum."""
        return self.proposal(may_miss) if _reads_data(self.evaluation.proposal) else Laplace()

    def evaluation_sampler(self, step: int = 0) -> Sampler:
        """The sampler of evaluation: chains from the proposal, or that of training if the proposal is the prior."""
        posterior = self.stage_of(step)[0].posterior
        num_steps = self.evaluation.posterior_steps
        if not isinstance(self.evaluation.proposal, PriorProposal):
            num_chains = self.evaluation.posterior_chains
            return ProposalChains(proposal=self.proposal(), num_steps=num_steps, num_chains=num_chains)
        if not isinstance(posterior, ChainSampler):
            return posterior
        with naming("evaluation.posterior_steps"):
            return dataclasses.replace(posterior, num_steps=num_steps)

    def _check_intervals(self) -> None:
        intervals = {
            "train.log_every": self.train.log_every,
            "evaluation.every_steps": self.evaluation.every_steps,
            "checkpoint.every_steps": self.checkpoint.every_steps,
        }
        for (base_name, base), (name, value) in itertools.pairwise(intervals.items()):
            if value % base:
                raise ValueError(f"{name}={value} must be a multiple of {base_name}={base}")

    def _check_stage(self, path: str, stage: Stage) -> None:
        """`path` precedes the names of the stage's settings."""
        num_steps, posterior = stage.num_steps, stage.posterior
        refit = f"{path}refit" if path else "train.refit"
        with naming(f"{path}posterior"):
            posterior.check_length(num_steps)
        if stage.refit and not isinstance(self.prior, ClusteredPrior):
            raise ValueError(f"{refit}=True needs a clustered prior, and prior is a {type(self.prior).__name__}")
        if self.data.labels and not isinstance(posterior, Variational):
            raise ValueError(f"data.labels=True needs a variational posterior, and {path}posterior is another")
        if self.data.transpose and posterior.persistent:
            raise ValueError(
                f"{path}posterior has chains for each datum as it is stored, which contradicts data.transpose"
            )
        if posterior.encoder is not None and posterior.encoder != self.encoder:
            raise ValueError(f"{path}posterior.encoder differs from that of an earlier stage: a run has one encoder")
        with naming(f"{path}posterior"):
            posterior.check(self.prior)
        try:
            stage.make_optimizer()
        except ValueError as error:
            raise ValueError(f"{path}{error}") from None

    def _check_data(self) -> None:
        data, prior = self.data, self.prior
        for names, group, part, is_it in (
            (TABLES, "likelihood", self.likelihood, isinstance(self.likelihood, Columns)),
            (TEXTS, "likelihood", self.likelihood, isinstance(self.likelihood, Categorical)),
            (TEXTS, "decoder", self.decoder, isinstance(self.decoder, SequenceDecoder)),
        ):
            if is_it != (data.name in names) and type(part).__module__.startswith("kaem_jax."):
                raise ValueError(
                    f"data.name={data.name!r} contradicts {group}={type(part).__name__}: tables need a likelihood of "
                    "columns, texts a categorical one and a sequence decoder, and nothing else takes these"
                )
        is_standardised = data.name in TABLES or data.name == "field"
        if is_standardised and self.decoder.output != "identity":
            raise ValueError(
                f"decoder.output={self.decoder.output!r} contradicts data.name={data.name!r}, whose values are "
                "standardised and have no bounds: set 'identity'"
            )
        num_classes = prior.num_classes if isinstance(prior, ClusteredPrior) else 0
        if data.labels != (num_classes > 0):
            raise ValueError(
                f"data.labels={data.labels} contradicts prior.num_classes={num_classes}: labels need a clustered prior "
                "with the number of their classes"
            )

    def _check_evaluation(self) -> None:
        proposal = self.evaluation.proposal
        if isinstance(proposal, EncoderProposal) and self.proposal() == proposal and proposal.encoder is None:
            raise ValueError("evaluation.proposal.kind='encoder' needs a posterior with an encoder: set 'laplace'")
        if _reads_data(proposal) and proposal.encoder not in (None, self.encoder):
            raise ValueError("evaluation.proposal.encoder differs from that of the posterior: a run has one encoder")
        if isinstance(self.posterior, Variational) and isinstance(proposal, PriorProposal):
            raise ValueError(
                "evaluation.proposal.kind='prior' would draw from the encoder of a variational posterior and call it "
                "the posterior: set 'laplace' or 'encoder'"
            )
        with naming("evaluation.estimator"):
            self.evaluation.estimator.check(self.prior, proposal)
        self.evaluation_sampler()


def _reads_data(proposal: Proposal) -> TypeGuard[EncoderProposal | Laplace]:
    return isinstance(proposal, EncoderProposal) or (isinstance(proposal, Laplace) and proposal.encoder is not None)


@contextlib.contextmanager
def naming(group: str) -> Iterator[None]:
    """Turns the `ValueError` of an object into a `ConfigError` that names the field in its group."""
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        separator = "." if re.match(r"\w+=", str(error)) else ": "
        raise ConfigError(f"{group}{separator}{error}") from None
