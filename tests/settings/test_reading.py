"""Nested dictionaries and command lines become objects, and objects dictionaries: one place for each setting."""

import dataclasses
import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kaem_jax as kaem
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.errors import ConfigError
from kaem_jax.kan.bases import BSpline
from kaem_jax.settings import apply_overrides, flatten, read, to_dict
from kaem_jax.settings.reading import read_kind
from kaem_jax.settings.registry import BASES, PRIORS
from tests.settings.kinds import KINDS, STEADY, required

DEFAULTS = to_dict(Experiment())
NAMES = sorted(flatten(DEFAULTS))


def overridden(*arguments, values=DEFAULTS):
    """The experiment of these values, by default all defaults, with `KEY=VALUE` overrides."""
    arguments = [f"--config.{argument}" for argument in arguments]
    return read(Experiment, apply_overrides(Experiment, values, arguments))


def test_an_empty_experiment_has_the_defaults_of_python():
    assert read(Experiment, {}) == Experiment()
    assert read(Experiment, json.loads(json.dumps(DEFAULTS))) == Experiment()


@pytest.mark.parametrize(("registry", "name"), KINDS, ids=lambda value: getattr(value, "what", value))
def test_every_kind_survives_a_round_trip_through_json(registry, name):
    made = read_kind(registry, required(registry.get(name)) | {"kind": name}, registry.what)
    described = json.loads(json.dumps(to_dict(made, registry)))
    assert described["kind"] == name
    again = read_kind(registry, described, registry.what)
    assert (again, hash(again), type(again)) == (made, hash(made), type(made))


@STEADY
@given(st.sampled_from(NAMES), st.data())
def test_a_name_with_a_slip_is_refused_with_the_right_one(name, data):
    """A letter that is doubled or missing, wherever it lies, in a dictionary and on the command line."""
    group, _, field = name.rpartition(".")
    at = data.draw(st.integers(0, len(field) - 1))
    slip = field[:at] + data.draw(st.sampled_from([2 * field[at], ""])) + field[at + 1 :]
    if f"{group}.{slip}".strip(".") in NAMES or not slip or field == "kind":
        return
    wrong, values = f"{group}.{slip}".strip("."), to_dict(Experiment())
    target = values
    for part in group.split(".") if group else []:
        target = target[part]
    target[slip] = target[field]
    for refused in (lambda: read(Experiment, values), lambda: overridden(f"{wrong}=1")):
        with pytest.raises(ConfigError) as caught:
            refused()
        assert str(caught.value).startswith(f"{wrong} is not a setting here; ")
        assert f"did you mean {field!r}?" in str(caught.value) or len(slip) < 4


@STEADY
@given(
    st.sampled_from(NAMES), st.sampled_from(["x", "()", "None", "nan", "-1", "1e400", "", "{'a': 1}", "[", "lambda: 0"])
)
def test_a_bad_value_is_one_sentence_that_names_its_field(name, value):
    """Or it is one that the field takes, which then has it."""
    try:
        found = overridden(f"{name}={value}")
    except ConfigError as error:
        message = str(error)
        assert "\n" not in message
        assert name.rpartition(".")[2] in message
    else:
        assert read(Experiment, to_dict(found)) == found


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("--config.prior.num_latents.x=3", ["num_latents is a single value", "'x'"]),
        ("--config.prior=3", ["prior"]),
        ("--config.train=3", ["train='3'", "group of fields"]),
        ("--config.prior.kind=mixtur", ["prior.kind", "did you mean 'mixture'?"]),
        ("--config.prior.basis.kind=fourier --config.prior.basis.degree=2", ["prior.basis.degree", "not a setting"]),
        ("--config.prior.basis=fourier --config.prior.basis.degree=2", ["basis is given as a whole, too"]),
        ("--config.train.num_steps", ["--config.train.num_steps has no value"]),
        ("--config.seed=4294967296", ["seed=4294967296", "4294967295"]),
        *((word, [repr(word), "--config.KEY=VALUE"]) for word in ("extra", "--steps=3", "config.seed=3", "--config=3")),
        ({"train": 3}, ["train=3", "group of fields"]),
        (3, ["config=3", "group of fields"]),
        ({"prior": {"kind": "mixture"}}, ["prior.num_latents is missing"]),
        ({"prior": {"kind": ["mixture"], "num_latents": 2}}, ["prior.kind", "['mixture']"]),
    ],
    ids=str,
)
def test_overrides_and_groups_that_are_refused(given, parts, refuses):
    """Arguments of a command line, or a dictionary."""
    with refuses(ConfigError, *parts):
        read(Experiment, apply_overrides(Experiment, DEFAULTS, given.split()) if isinstance(given, str) else given)


def test_values_of_the_command_line_have_the_type_of_their_field():
    found = overridden(
        "name=7", "decoder.hidden=(8, 9)", "likelihood.learn_sigma=true", "likelihood.sigma=1", "prior.kind=mixture",
        "prior.domain=[0, 1]", "decoder.output=identity",
    )  # fmt: skip
    assert (found.name, found.decoder.hidden, found.likelihood.learn_sigma) == ("7", (8, 9), True)
    assert (found.likelihood.sigma, found.prior.domain) == (1.0, (0.0, 1.0))
    assert overridden("decoder.hidden=8").decoder.hidden == (8,)
    assert type(found.name) is type(found.decoder.output) is str


SET = {
    "prior": {"kind": "mixture", "num_latents": 5, "num_components": 7, "grid_size": 9},
    "posterior": {"kind": "importance", "num_samples": 4000},
    "likelihood": {"kind": "gaussian", "sigma": 0.2},
    "evaluation": {"estimator": {"kind": "importance", "final_num_samples": 77, "batch_size": 8}},
}

TEXT = {
    "data": {"name": "text", "path": "t.txt"},
    "decoder": {"kind": "sequence", "ngram_order": 3, "ngram_bits": 9},
    "likelihood": {"kind": "categorical"},
}


def test_another_kind_forgets_what_the_experiment_set_for_its_own(refuses):
    """`--config.posterior.kind=langevin` must not trip over 4000 proposals; a field that both have is kept."""
    found = overridden("posterior.kind=langevin", values=SET)
    assert found.posterior == kaem.Langevin()
    assert found.evaluation.estimator.final_num_samples == 77
    of_clusters = overridden("prior.kind=clustered", values=SET).prior
    assert of_clusters == kaem.ClusteredPrior(num_latents=5, grid_size=9)
    assert overridden("evaluation.estimator.kind=ais", values=SET).evaluation.estimator.batch_size == 8
    assert overridden("prior.basis.kind=fourier", values=SET).prior.basis == BASES.get("fourier")()
    assert SET["posterior"] == {"kind": "importance", "num_samples": 4000}  # the dictionary is not changed
    # What the user gives by hand is never forgotten.
    with refuses(ConfigError, "posterior.num_samples is not a setting here"):
        overridden("posterior.kind=langevin", "posterior.num_samples=7", values=SET)
    assert overridden("posterior.kind=langevin", "posterior.num_steps=7", values=SET).posterior.num_steps == 7


def test_a_choice_that_is_overridden_forgets_what_only_the_other_one_used(refuses):
    assert overridden("decoder.ngram_order=0", values=TEXT).decoder.ngram_bits == kaem.SequenceDecoder().ngram_bits
    with refuses(ConfigError, "decoder.ngram_bits=10", "does nothing with ngram_order=0"):
        overridden("decoder.ngram_order=0", "decoder.ngram_bits=10", values=TEXT)
    csv = {"data": {"name": "table", "path": "t.csv", "columns": ("a",)}, "decoder": {"output": "identity"}}
    found = overridden("data.name=digits", values=csv).data
    assert (found.path, found.columns) == ("", ())


def test_a_kind_may_be_named_given_or_described():
    mixture = kaem.MixturePrior(num_latents=2, basis=BSpline(degree=2))
    described = {"kind": "mixture", "num_latents": 2, "basis": {"kind": "b_spline", "degree": 2}}
    with_object, with_class = described | {"basis": BSpline(degree=2)}, described | {"kind": kaem.MixturePrior}
    for prior in (mixture, described, with_object, with_class):
        assert read(Experiment, {"prior": prior}).prior == mixture
    assert read(Experiment, {"evaluation": {"proposal": "prior"}}).evaluation.proposal == kaem.PriorProposal()
    # Without `kind` a group is of the default's.
    assert read(Experiment, {"prior": {"num_latents": 2}}).prior == kaem.ClusteredPrior(num_latents=2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Coarse(kaem.ProductPrior):
    """A prior of a user."""

    grid_size: int = 4
    colour: str = "red"


def test_a_users_own_class_has_settings_like_others(refuses):
    own = f"{__name__}:Coarse"
    values = {"prior": {"kind": own, "num_latents": 2}}
    found = overridden("prior.colour=blue", values=values)
    assert (type(found.prior).__name__, found.prior.colour, found.prior.grid_size) == ("Coarse", "blue", 4)
    described = to_dict(found)
    assert described["prior"]["kind"] == own
    assert read(Experiment, described) == found
    assert overridden(f"prior.kind={own}", "prior.num_latents=2", values={}).prior == Coarse(num_latents=2)
    with refuses(ConfigError, "prior.color is not a setting here; did you mean 'colour'?"):
        overridden("prior.color=blue", values=values)
    assert PRIORS.name_of(Coarse) == own


ONE_PLACE = """
import json, pathlib, sys
import kaem_jax.settings
from kaem_jax.settings import fields
plain = fields.setting
# The only change: what the class of `train` says of its number of steps.
def setting(default=fields.dataclasses.MISSING, **options):
    return plain(2345 if default == 3000 else default, **options)
kaem_jax.settings.setting = fields.setting = setting

from kaem_jax.app.data import load_dataset
from kaem_jax.app.experiment.experiment import Experiment, Train
from kaem_jax.app.experiment.experiment_file import read_experiment
from kaem_jax.app.runs.run_folder import RunFolder
from kaem_jax.settings import read
folder = RunFolder(pathlib.Path(sys.argv[1]))
(folder.root / "plain.py").write_text("def get_config():\\n    return {}\\n")
from_command_line = read_experiment(str(folder.root / "plain.py"), ["--config.seed=3"])
folder.write_config(from_command_line, load_dataset(from_command_line.data))
written = json.loads(folder.config.read_text())["config"]
without = {"train": {name: value for name, value in written["train"].items() if name != "num_steps"}}
print(Train().num_steps, Experiment().train.num_steps, from_command_line.train.num_steps, written["train"]["num_steps"],
      folder.saved_config().train.num_steps, read(Experiment, without).train.num_steps)
"""


@pytest.mark.slow
def test_a_default_stands_in_one_place(tmp_path):
    """Changed in the class, in a process of its own, it changes for Python, the command line and config.json alike."""
    process = subprocess.run(
        [sys.executable, "-c", ONE_PLACE, str(tmp_path)], capture_output=True, text=True, timeout=600
    )
    assert process.stdout.split() == ["2345"] * 6, process.stderr


def test_the_page_of_settings_is_that_of_the_classes():
    """docs/settings.md, which `python docs/write_settings.py` writes: a changed default changes the page, too."""
    path = pathlib.Path(__file__).parents[2] / "docs" / "write_settings.py"
    spec = importlib.util.spec_from_file_location("write_settings", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.page()
    assert module.PAGE.read_text() == page
    for name in NAMES:
        assert f"`{name.rpartition('.')[2]}`" in page or name.endswith(".kind"), name
