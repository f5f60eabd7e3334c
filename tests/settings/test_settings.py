"""A configuration is refused early, in one sentence that names the field, what was given and what is allowed."""

import ast
import copy
import importlib.util
import json
import pathlib
import typing

import jax
import pytest
from flax import traverse_util

from kaem_jax.cli.train import read_config
from kaem_jax.evaluation.metrics.comparison import SAMPLE_METRICS
from kaem_jax.runs.build import build_model, build_sampler
from kaem_jax.settings import check_overrides, default_dict, image_settings, settle
from kaem_jax.runs.experiment import Experiment
from kaem_jax.errors import ConfigError
from kaem_jax.settings.evaluation import SampleMetric
from kaem_jax.data.settings import TOYS
from kaem_jax.training.optimizer import GROUPS

EXPERIMENTS = sorted((pathlib.Path(__file__).parents[2] / "experiments").glob("[!_]*.py"))


def edited(**changes):
    values = copy.deepcopy(default_dict())
    for path, value in changes.items():
        *groups, name = path.split("__")
        target = values
        for group in groups:
            target = target[group]
        target[name] = value
    return values


def test_defaults_are_valid_and_survive_a_round_trip_through_json():
    config = Config.from_dict(default_dict())
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert hash(config) == hash(Config())


FROM_ENCODER = {"posterior__kind": "langevin", "posterior__start": "encoder", "encoder__kind": "mlp"}


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"prior__outr": 3}, ["prior.outr", "did you mean prior.outer?"]),
        (
            {"posterior__kind": "tempered", "posterior__objective": "thermodynamic", "posterior__num_temperatures": 1},
            ["posterior.objective='thermodynamic'", "num_temperatures=1", "at least 2"],
        ),
        (
            {"posterior__kind": "langevin", "posterior__persistent": True, "posterior__points": "sobol"},
            ["posterior.points='sobol'", "posterior.persistent=True"],
        ),
        (
            {"posterior__negative_phase": "sampled", "prior__parameterization": "non_centred"},
            ["posterior.negative_phase='sampled'", "non_centred", "'exact'"],
        ),
        (
            {"posterior__negative_phase": "sampled", "prior__kind": "comonotone"},
            ["posterior.negative_phase='sampled'", "comonotone", "'exact'"],
        ),
        (
            {"grid_update__first_step": 50, "train__num_steps": 50},
            ["grid_update.first_step=50", "below train.num_steps=50"],
        ),
        (
            {"likelihood__per_channel": True, "likelihood__learn_sigma": False},
            ["likelihood.per_channel=True", "learn_sigma=True"],
        ),
        (
            {"data__name": "field", "data__path": "f.npz", "decoder__output": "sigmoid"},
            ["decoder.output='sigmoid'", "data.name='field'", "'identity'"],
        ),
        (
            {"data__name": "field", "data__path": "f.npz", "decoder__output": "identity"}
            | {"likelihood__kind": "bernoulli"},
            ["likelihood.kind='bernoulli'", "data.name='field'", "'gaussian'"],
        ),
        (
            {"data__name": "field", "data__path": "f.npz", "decoder__output": "identity"}
            | {"posterior__kind": "variational", "encoder__kind": "conv", "encoder__standardize": True},
            ["encoder.standardize=True", "data.name='field'", "set False"],
        ),
        ({"encoder__kind": "conv", "encoder__readout_scale": 0.0}, ["encoder.readout_scale=0.0", "above 0"]),
        ({"encoder__standardize": True}, ["encoder.standardize=True", "encoder.kind='conv'"]),
        ({"prior__zzz": 3}, ["prior.zzz", "allowed: kind", "outer"]),
        ({"prior__outer": "five"}, ["prior.outer='five'", "int"]),
        ({"prior__outer": True}, ["prior.outer=True", "int"]),
        ({"prior__outer": 2.0}, ["prior.outer=2.0", "int"]),
        ({"prior__outer": 0}, ["prior.outer=0", "at least 1"]),
        ({"prior__degree": 6}, ["prior.degree=6", "at most 5"]),
        ({"prior__kind": "mixtur"}, ["prior.kind='mixtur'", "mixture, neural, product", "did you mean 'mixture'?"]),
        ({"prior__kind": ["mixture"]}, ["prior.kind=['mixture']", "allowed"]),
        ({"prior__domain": (1.0, 0.0)}, ["prior.domain=(1.0, 0.0)", "low < high"]),
        ({"prior__domain": (1.0,)}, ["prior.domain=(1.0,)", "2 entries"]),
        ({"prior__domain": 3.0}, ["prior.domain=3.0", "tuple"]),
        ({"prior__reference": "lognormal"}, ["prior.domain=(-3.0, 3.0)", "above 0"]),
        ({"prior": 3}, ["prior=3", "group of fields"]),
        (
            {"prior__kind": "product", "prior__proportions": "learned"},
            ["prior.proportions", "prior.kind='clustered' or 'mixture'"],
        ),
        (
            {"posterior__kind": "langevin", "posterior__num_samples": 7},
            ["posterior.num_samples=7", "posterior.kind='importance'", "'langevin'", "leave it at 1000"],
        ),
        ({"posterior__num_temperatures": 7}, ["posterior.num_temperatures=7", "posterior.kind='tempered'"]),
        ({"evaluation__final_num_samples": 7}, ["evaluation.final_num_samples=7", "evaluation.method='importance'"]),
        ({"prior__hidden": (7,)}, ["prior.hidden=(7,)", "prior.kind='neural'"]),
        ({"decoder__group_norm": True}, ["decoder.group_norm=True", "decoder.kind='conv'"]),
        (
            {"posterior__kind": "tempered", "posterior__num_cycles": 2},
            ["posterior.num_cycles=2", "posterior.ladder='annealed'"],
        ),
        ({"data__path": "a.npz"}, ["data.path='a.npz'", "'folder' or 'npz'", "'digits'"]),
        ({"prior__basis": "bspline"}, ["prior.basis='bspline'", "did you mean 'b_spline'?", "module:name"]),
        ({"posterior__kind": "langevin", "posterior__kernel": "malla"}, ["posterior.kernel='malla'", "'mala'?"]),
        ({"decoder__hidden": (64, 0)}, ["decoder.hidden=(64, 0)", "at least 1"]),
        ({"likelihood__kind": "bernoulli"}, ["decoder.output='sigmoid'", "logits"]),
        ({"likelihood__sigma": 0.0}, ["likelihood.sigma=0.0", "above 0"]),
        ({"optimizer__clip_norm": float("nan")}, ["optimizer.clip_norm=nan", "finite"]),
        ({"optimizer__prior__warmup_steps": 5000}, ["optimizer.prior.warmup_steps=5000", "train.num_steps"]),
        ({"posterior__ess_threshold": 1.5}, ["posterior.ess_threshold=1.5", "at most 1"]),
        ({"evaluation__every_steps": 70}, ["evaluation.every_steps=70", "train.log_every"]),
        ({"checkpoint__every_steps": 750}, ["checkpoint.every_steps=750", "evaluation.every_steps"]),
        ({"prior__kind": "neural"}, ["posterior.negative_phase='exact'", "'sampled'"]),
        ({"posterior__objective": "thermodynamic"}, ["posterior.objective='thermodynamic'", "'tempered'"]),
        (
            {"posterior__kind": "tempered", "posterior__num_steps": 7},
            ["posterior.num_steps=7", "posterior.steps_per_round=5"],
        ),
        (
            {"posterior__kind": "tempered", "prior__kind": "neural", "posterior__negative_phase": "sampled"},
            ["posterior.refresh=True", "neural"],
        ),
        (
            {"posterior__kind": "tempered", "evaluation__posterior_steps": 7, "evaluation__reference": "prior"},
            ["evaluation.posterior_steps=7", "posterior.steps_per_round=5"],
        ),
        ({"data__name": "npz"}, ["data.path", "'npz'"]),
        ({"data__storage": "disk"}, ["data.storage='disk'", "'digits'"]),
        ({"data__held_out": "validation"}, ["data.held_out='validation'", "data.validation_size=0"]),
        (
            {"prior__kind": "neural", "posterior__negative_phase": "sampled", "posterior__points": "sobol"},
            ["posterior.points='sobol'", "'random'"],
        ),
        (
            {"prior__kind": "neural", "posterior__negative_phase": "sampled", "prior__parameterization": "non_centred"},
            ["prior.parameterization='non_centred'", "'product'", "'neural'"],
        ),
        (
            {"prior__kind": "neural", "posterior__negative_phase": "sampled", "regularization__l1": 1.0},
            ["regularization.l1=1.0", "prior.kind='neural'"],
        ),
        ({"posterior__persistent": True}, ["posterior.persistent=True", "'langevin'"]),
        (
            {"prior__kind": "neural", "posterior__negative_phase": "sampled", "grid_update__first_step": 9},
            ["grid_update.first_step=9", "neural"],
        ),
        ({"regularization__dirichlet": 0.1}, ["regularization.dirichlet=0.1", "'learned'"]),
        ({"regularization__ngrams": 0.1}, ["regularization.ngrams=0.1", "decoder.ngram_order"]),
        ({"train__steps_per_call": 7}, ["train.num_steps=3000", "train.steps_per_call=7"]),
        ({"seed": -1}, ["seed=-1", "at least 0"]),
        ({"likelihood__anneal_from": 1.0}, ["likelihood.anneal_from=1.0", "likelihood.anneal_steps=0"]),
        (
            {"likelihood__anneal_from": 1.0, "likelihood__anneal_steps": 9},
            ["likelihood.learn_sigma=True", "likelihood.anneal_from"],
        ),
        ({"likelihood__levels": 17}, ["likelihood.levels=17", "likelihood.kind='discretized_logistic'"]),
        ({"data__labels": True}, ["data.labels=True", "prior.num_classes=0", "'clustered'"]),
        (
            {"prior__kind": "clustered", "prior__num_classes": 2, "data__labels": True},
            ["data.labels=True", "'variational'", "'importance'"],
        ),
        (
            {"posterior__kind": "langevin", "posterior__persistent": True, "data__flip": True},
            ["data.flip=True", "posterior.persistent=True"],
        ),
        (
            {"posterior__kind": "langevin", "posterior__persistent": True, "data__transpose": True},
            ["data.transpose=True", "posterior.persistent=True"],
        ),
        (
            {"evaluation__posterior_chains": 9, "evaluation__reference": "prior"},
            ["evaluation.posterior_chains=9", "evaluation.proposal='prior'", "posterior.num_chains"],
        ),
        ({"posterior__kind": "variational"}, ["posterior.kind='variational'", "encoder.kind", "'mlp', 'conv'"]),
        ({"posterior__kind": "langevin", "posterior__start": "encoder"}, ["posterior.start='encoder'", "encoder.kind"]),
        ({"encoder__kind": "mlp"}, ["encoder.kind='mlp'", "learn nothing", "posterior.kind='variational'"]),
        ({"encoder__hidden": (7,)}, ["encoder.hidden=(7,)", "encoder.kind='conv' or 'mlp'"]),
        ({"evaluation__reference": "encoder"}, ["evaluation.proposal='encoder'", "'laplace' or 'prior'"]),
        (
            {"posterior__kind": "variational", "encoder__kind": "mlp", "evaluation__reference": "prior"},
            ["evaluation.proposal='prior'", "posterior.kind='variational'", "'laplace' or 'encoder'"],
        ),
        (
            FROM_ENCODER | {"posterior__points": "sobol"},
            ["posterior.points='sobol'", "'random'"],
        ),
        (
            FROM_ENCODER | {"posterior__kind": "tempered", "posterior__objective": "steppingstone"},
            ["posterior.objective='steppingstone'", "posterior.start='prior'"],
        ),
        (
            {"posterior__kind": "langevin", "posterior__encoder_target": "simulated"},
            ["posterior.encoder_target", "'encoder'"],
        ),
        (
            {"prior__kind": "neural", "posterior__kind": "variational", "encoder__kind": "mlp"},
            ["posterior.kind='variational'", "neural"],
        ),
        (
            {"prior__kind": "neural", "posterior__negative_phase": "sampled"},
            ["evaluation.proposal='laplace'", "evaluation.method='auto'", "normalised"],
        ),
        ({"parallel__temp": 2}, ["parallel.temp=2", "posterior.kind='tempered'"]),
        ({"parallel__data": 0}, ["parallel.data=0", "at least 1"]),
        ({"data__name": "text", "data__path": "t.txt"}, ["data.name='text'", "likelihood.kind='gaussian'"]),
        ({"decoder__kind": "sequence"}, ["decoder.kind='sequence'"]),
        ({"data__name": "wine", "decoder__output": "identity"}, ["data.name='wine'", "likelihood.kind", "columns"]),
        ({"likelihood__kind": "columns", "decoder__output": "identity"}, ["likelihood.kind='columns'"]),
        (
            {"evaluation__method": "importance", "evaluation__points": "sobol"},
            ["evaluation.points='sobol'", "evaluation.reference"],
        ),
        (
            {"evaluation__samples_every_steps": 3},
            ["evaluation.samples_every_steps=3", "multiple", "evaluation.every_steps"],
        ),
    ],
)
def test_bad_values(refuses, changes, parts):
    with refuses(ConfigError, *parts):
        Config.from_dict(edited(**changes))


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"posterior__kind": "tempered", "posterior__kernel": "pcnl"}, ["posterior.kernel=PCNL()", "non_centred"]),
        ({"posterior__kind": "langevin", "posterior__kernel": "pcnl"}, ["posterior.kernel=PCNL()", "non_centred"]),
        ({"posterior__kind": "langevin", "posterior__adapt_steps": 9}, ["posterior.adapt_steps=9", "'mala'"]),
        (
            {
                "posterior__kind": "langevin",
                "posterior__kernel": "pcnl",
                "posterior__step_size": 2.5,
                "prior__parameterization": "non_centred",
            },
            ["posterior.step_size=2.5", "below 2"],
        ),
        (
            {"posterior__kind": "langevin", "posterior__kernel": "nowhere:Kernel"},
            ["posterior.kernel='nowhere:Kernel'", "cannot be imported"],
        ),
        ({"prior__basis": "fourier", "grid_update__first_step": 9}, ["grid_update.first_step=9", "'fourier'"]),
        ({"prior__basis": "fourier", "prior__degree": 2}, ["prior.degree=2", "'fourier'"]),
        ({"prior__basis": "os:getcwd"}, ["prior.basis='os:getcwd'", "Basis"]),
        ({"likelihood__per_channel": True}, ["likelihood.per_channel=True", "(8, 8)"]),
        ({"decoder__kind": "conv"}, ["decoder: a conv decoder", "(8, 8); give grey images one channel"]),
    ],
)
def test_what_the_objects_refuse_names_the_field(refuses, changes, parts):
    """What depends on a kernel or basis is known to these objects alone: refused when they are built."""
    config = Config.from_dict(edited(**changes))
    with refuses(ConfigError, *parts):
        model = build_model(config, (8, 8))
        build_sampler(config, model.prior, model.data_shape)


def test_a_choice_on_the_command_line_forgets_what_the_experiment_set_for_its_own():
    """digits sets num_samples for importance sampling: `--config.posterior.kind=langevin` must not trip over it, nor
    over the settings of the estimator; what the user gives by hand is never ignored."""
    values = edited(posterior__num_samples=4000, evaluation__num_samples=77, posterior__kind="langevin")
    settled = settle(values, {"posterior.kind"}, Config)
    assert settled["posterior"]["num_samples"] == 1000
    assert settled["evaluation"]["num_samples"] == 77
    assert Config.from_dict(settled, {"posterior.kind"}).posterior.kind == "langevin"
    with pytest.raises(ConfigError, match=r"posterior\.num_samples=4000 needs posterior\.kind='importance'"):
        Config.from_dict(settle(values, set(), Config))
    default = edited(posterior__kind="langevin")
    with pytest.raises(ConfigError, match=r"posterior\.num_samples=1000 needs"):
        Config.from_dict(
            settle(default, {"posterior.kind", "posterior.num_samples"}, Config), {"posterior.num_samples"}
        )


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
def test_flags_reach_the_configuration(refuses):
    flags = ["--config.posterior.kind=langevin", "--config.posterior.num_steps=7", "--config.likelihood.sigma=1"]
    config = read_config("digits", flags)
    assert (config.name, config.posterior.kind, config.posterior.num_steps) == ("digits", "langevin", 7)
    assert config.likelihood.sigma == 1.0
    assert read_config("svhn:tiny", []).name == "svhn_tiny"
    assert read_config(str(EXPERIMENTS[0]), []).name == EXPERIMENTS[0].stem
    for arguments, parts in (
        (("nowhere.py", []), ["'nowhere.py'", "digits", "svhn_tempered"]),
        ((None, []), ["--config is missing"]),
        (("digits", ["--config.posterior.kernel=mala"]), ["posterior.kernel='mala'", "posterior.kind='langevin'"]),
        (("svhn:huge", []), ["variant 'huge'", "tiny"]),
        (("digits", ["extra"]), ["'extra' is not an option"]),
    ):
        with refuses(ConfigError, *parts):
            read_config(*arguments)


def test_missing_fields(refuses):
    values = default_dict()
    del values["prior"]["outer"]
    with refuses(ConfigError, "prior.outer is missing"):
        Config.from_dict(values)


def test_an_int_may_stand_for_a_float_and_a_list_for_a_tuple():
    config = Config.from_dict(edited(likelihood__sigma=1, decoder__hidden=[8, 9]))
    assert isinstance(config.likelihood.sigma, float)
    assert config.decoder.hidden == (8, 9)


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("--config.pror.outer=3", ["pror", "did you mean prior?"]),
        ("--config.prior.outr=3", ["prior.outr", "did you mean prior.outer?"]),
        ("--config.prior.outer.x=3", ["prior.outer is a single value", "'x'"]),
    ],
)
def test_bad_overrides(refuses, argument, parts):
    with refuses(ConfigError, *parts):
        check_overrides([argument], Config)


def imported(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_is_valid(path, refuses):
    module = imported(path)
    config = Config.from_dict(module.get_config().to_dict())
    assert config.name == path.stem
    assert f"experiments/{path.name}" in module.__doc__
    if config.data.name != "digits":
        tiny = Config.from_dict(module.get_config("tiny").to_dict())
        assert tiny.name == f"{path.stem}_tiny"
        assert tiny.data.name == config.data.name
        assert tiny.train.num_steps < config.train.num_steps
        with refuses(ConfigError, "variant 'small'", path.stem, "tiny"):
            module.get_config("small")


def test_experiments_model_what_they_say():
    """Each toy its own law; Darcy flow the pressure, which is `y`."""
    by_name = {path.stem: imported(path) for path in EXPERIMENTS if path.stem in ("darcy", "toys")}
    for toy in TOYS:
        assert by_name["toys"].get_config(toy).data.name == toy
    assert "`y` (pressure)" in by_name["darcy"].__doc__
    assert by_name["darcy"].get_config().data.columns == ("y",)


def listed_settings():
    """Rows of tests/settings/settings.txt: name, kinds, default, range."""
    lines = (pathlib.Path(__file__).parent / "settings.txt").read_text().splitlines()[1:]
    return [[part.strip() for part in line.split("|")] for line in lines]


def test_settings_and_their_defaults_are_the_listed_ones():
    listed = {name: ast.literal_eval(default) for name, _, default, _ in listed_settings()}
    tags = ("prior.kind", "decoder.kind", "likelihood.kind", "encoder.kind", "posterior.kind", "evaluation.method")
    found = traverse_util.flatten_dict(default_dict(), sep=".")
    assert {name: value for name, value in found.items() if name not in tags} == listed
    assert [found[name] for name in tags] == ["mixture", "mlp", "gaussian", "none", "importance", "auto"]


def test_every_range_ends_where_it_is_listed_to_end():
    """A value on a bound is not refused for it, the next one beyond is, in every kind that has the setting."""
    checked = 0
    for name, kinds, default, listed in listed_settings():
        value = ast.literal_eval(default)
        is_tuple = isinstance(value, tuple)
        unit = 1 if isinstance(value[0] if is_tuple and value else value, int) else 1e-7
        for bound in filter(None, listed.split(", ")):
            words, limit = bound.rsplit(" ", 1)
            limit = ast.literal_eval(limit)
            outside = {"at least": limit - unit, "at most": limit + unit, "above": limit}[words]
            inside = limit + unit if words == "above" else limit
            for kind in kinds.split() or [None]:
                group, _, field = name.rpartition(".")
                tag = {} if kind is None else {f"{group}__{'method' if group == 'evaluation' else 'kind'}": kind}
                messages = []
                for number in (outside, inside):
                    given = (number,) if is_tuple else number
                    path = "__".join([*group.split("."), field]) if group else field
                    try:
                        Config.from_dict(edited(**tag, **{path: given}))
                        messages.append("")
                    except ConfigError as error:
                        messages.append(str(error))
                assert messages[0].startswith(f"{name}=")
                assert messages[0].endswith(f"must be {bound}")
                assert not messages[1].endswith(f"must be {bound}")
                checked += 1
    assert checked > 130


def test_papers_settings_are_the_papers():
    """Those that `image_settings` and BUILD_NOTES.md name: the paper's own, in full and on a laptop."""
    for tempered in (False, True):
        settings = image_settings("svhn", "paper", (8, 4), tempered=tempered)
        prior, posterior, optimizer = (settings[name] for name in ("prior", "posterior", "optimizer"))
        assert [prior[name] for name in ("kind", "outer", "inner", "reference")] == ["mixture", 81, 40, "gaussian"]
        assert (settings["likelihood"]["sigma"], settings["likelihood"]["learn_sigma"]) == (0.3, False)
        assert (settings["decoder"]["kind"], settings["data"]["batch_size"]) == ("conv", 50)
        assert [posterior[name] for name in ("kernel", "num_steps", "step_size", "start")] == ["ula", 40, 0.01, "prior"]
        rates = {
            name: (group["learning_rate"], group["schedule"]) for name, group in optimizer.items() if name in GROUPS
        }
        assert rates == {"decoder": (1e-4, "constant"), "prior": (2e-5, "constant")}
        assert posterior["kind"] == ("tempered" if tempered else "langevin")
        if tempered:
            assert (posterior["num_temperatures"], posterior["ladder"]) == (20, "adaptive")
    assert image_settings("svhn", "paper_tiny", (8, 4), tempered=True)["posterior"]["num_temperatures"] == 4
    ours = image_settings("svhn", "", (8, 4))
    assert (ours["prior"]["kind"], ours["prior"]["outer"], ours["prior"]["inner"]) == ("clustered", 81, 100)
    assert (ours["encoder"]["hidden"], ours["posterior"]["kind"]) == ((4, 8), "variational")
    assert ours["evaluation"]["base"] == "encoder"
    for variant, rates in (("", (5e-3, 1e-3)), ("tiny", (1e-2, 4e-3)), ("large", (5e-3, 1e-3))):
        groups = image_settings("svhn", variant, (8, 4))["optimizer"]
        assert (groups["prior"]["learning_rate"], groups["decoder"]["learning_rate"]) == rates
    large = image_settings("svhn", "large", (8, 4))
    assert (large["prior"]["outer"], large["decoder"]["hidden"]) == (100, (20, 10))
    neural = image_settings("svhn", "", (8, 4), neural=True)
    assert (neural["prior"]["kind"], neural["posterior"]["kind"]) == ("neural", "langevin")


def test_sample_metrics_of_the_config_are_those_of_the_evaluation():
    assert set(typing.get_args(SampleMetric)) == set(SAMPLE_METRICS)


def test_the_large_variant_has_the_size_that_it_says():
    """3.7 million parameters for SVHN, encoder included (`image_settings`)."""
    config = Config.from_dict(image_settings("svhn", "large", (128, 64, 32)))
    model = build_model(config, (32, 32, 3))
    sampler = build_sampler(config, model.prior, model.data_shape)
    params = jax.eval_shape(lambda key: model.init(key) | sampler.init_params(key), jax.random.key(0))
    assert 3.7e6 < sum(leaf.size for leaf in jax.tree.leaves(params)) < 3.8e6


@pytest.mark.parametrize(
    ("name", "value", "needed", "mended"),
    [
        ("data.fit", "pad", "data.image_size", {"data__image_size": 8}),
        ("evaluation.posterior_steps", 7, "evaluation.proposal='laplace'", {"evaluation__reference": "laplace"}),
        ("posterior.resampling", "residual", "posterior.ess_threshold", {"posterior__ess_threshold": 0.5}),
        ("evaluation.num_images", 30, "evaluation.samples_every_steps", {"evaluation__samples_every_steps": 500}),
        ("grid_update.growth", 3.0, "grid_update.first_step", {"grid_update__first_step": 5}),
        ("grid_update.source", "prior", "grid_update.first_step", {"grid_update__first_step": 5}),
    ],
)
def test_what_does_nothing_is_refused_only_where_a_user_says_it(refuses, name, value, needed, mended):
    """A folder of an older run holds these fields, and still loads."""
    base = {"data__name": "folder", "data__path": "x", "evaluation__reference": "prior"}
    idle = edited(**base, **{name.replace(".", "__"): value})
    Config.from_dict(idle)
    with refuses(ConfigError, f"{name} does nothing here", needed):
        Config.from_dict(idle, {name})
    Config.from_dict(edited(**base | mended, **{name.replace(".", "__"): value}), {name})
