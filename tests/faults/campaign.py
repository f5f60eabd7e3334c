"""A campaign of faults with a seed: random settings, damaged files, killed runs.

    python -m tests.faults.campaign --configurations 10000 --files 1000 --kills 100 --seed 0

Every outcome must be success, a documented exit code with one sentence, or a resume that ends bit for bit where an
undisturbed run ends. Anything else is printed with the numbers that reproduce it, and the exit code is 1.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

import kaem_jax as kaem
from kaem_jax.cli import report
from kaem_jax.cli.train import read_config
from kaem_jax.errors import RunError
from kaem_jax.runs.build import build_estimator, build_model, build_optimizer, build_sampler
from kaem_jax.settings import default_dict
from kaem_jax.errors import ConfigError
from kaem_jax.settings import flatten
from tests.training.conftest import command

_ODD = (
    "0", "-1", "1", "2", "3", "7", "64", "1e-30", "1e30", "1e400", "nan", "inf", "-0.0", "0.5", "1.0", "10**30",
    "1" + "0" * 30, "true", "false", "None", "", "''", "x", "()", "(1,)", "(1, 2)", "(3.0, -3.0)", "(0.05, 8.0)",
    "(1.0, 1.000000001)", "('a',)", "((1, 2), 3)", "(" * 50 + ")" * 50, "{'a': 1}", "[1]", "lambda: 0", "\u00e9", "a b",
    "; rm", "../..", "/etc/passwd",
)  # fmt: skip


@dataclasses.dataclass
class Count:
    """What a part of the campaign found."""

    tried: int = 0
    accepted: int = 0
    refused: int = 0
    failures: list = dataclasses.field(default_factory=list)


def _one_sentence(message):
    return bool(message) and "Traceback" not in message and "\n" not in message.strip()


def try_configurations(seed, count):
    """Random overrides of one to four fields; what is accepted is built, though not compiled."""
    found, fields = Count(), flatten(default_dict())
    words = sorted({str(value) for value in fields.values() if isinstance(value, str) and value})
    kinds = {
        "prior.kind": ("product", "mixture", "clustered", "comonotone", "neural"),
        "posterior.kind": ("importance", "langevin", "tempered", "variational"),
        "decoder.kind": ("mlp", "conv", "kan"),
        "likelihood.kind": ("gaussian", "bernoulli", "discretized_logistic"),
        "evaluation.method": ("auto", "importance", "ais"),
        "evaluation.reference": ("laplace", "prior", "encoder"),
        "encoder.kind": ("none", "mlp", "conv"),
    }
    for case in range(count):
        rng = random.Random(f"{seed} {case}")
        overrides = {}
        for _ in range(rng.randint(0, 2)):
            name = rng.choice(list(kinds))
            overrides[name] = rng.choice(kinds[name])
        for _ in range(rng.randint(1, 3)):
            name = rng.choice(list(fields))
            value = rng.choice((rng.choice(_ODD), rng.choice(words), str(fields[name])))
            overrides.setdefault(name, value)
        arguments = [f"--config.{name}={value}" for name, value in overrides.items()]
        found.tried += 1
        try:
            config = read_config("digits", arguments)
            model = build_model(config, (8, 8))
            build_sampler(config, model.prior, (8, 8))
            build_optimizer(config)
            build_estimator(config, model, final=True)
            found.accepted += 1
        except ConfigError as error:
            found.refused += 1
            if not _one_sentence(str(error)):
                found.failures.append((case, arguments, f"not one sentence: {error}"))
        except BaseException as error:
            found.failures.append((case, arguments, f"{type(error).__name__}: {str(error)[:200]}"))
    return found


def _damage(rng, folder):
    """Damages one file of a run; returns what was done."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = rng.choice(files)
    how = rng.choice(("flip", "flip", "truncate", "empty", "delete", "folder", "json", "garbage", "copy"))
    content = path.read_bytes()
    if how == "flip" and content:
        position = rng.randrange(len(content))
        path.write_bytes(
            content[:position] + bytes([content[position] ^ (1 << rng.randrange(8))]) + content[position + 1 :]
        )
    elif how == "truncate":
        path.write_bytes(content[: rng.randrange(len(content) + 1)])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "delete":
        path.unlink()
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "json":
        path.write_text(rng.choice(("null", "3", "true", "[]", "{}", '"a"', '{"step": "x"}', '{"config": 3}', "[[1]]")))
    elif how == "garbage":
        path.write_bytes(rng.randbytes(200))
    elif how == "copy":
        shutil.copy(path, path.with_name(path.name + " (copy)"))
    return f"{how} {path.relative_to(folder)}"


def damage_files(seed, count, finished):
    """Damages a file of a finished run, then loads the run and writes its report."""
    found, expected = Count(), jax.tree.leaves(kaem.load(finished).params)
    for case in range(count):
        rng = random.Random(f"{seed} {case}")
        found.tried += 1
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary) / "run"
            shutil.copytree(finished, folder)
            done = _damage(rng, folder)
            refused = False
            try:
                params = jax.tree.leaves(kaem.load(folder).params)
                same = all(np.array_equal(a, b) for a, b in zip(expected, params, strict=True))
                # The newest checkpoint may be gone, and the one before be read.
                if not same and (folder / "checkpoints" / str(_newest(finished))).exists():
                    found.failures.append((case, done, "other parameters, silently"))
            except RunError as error:
                refused = True
                if not _one_sentence(str(error)):
                    found.failures.append((case, done, f"not one sentence: {error}"))
            except BaseException as error:
                found.failures.append((case, done, f"load: {type(error).__name__}: {str(error)[:200]}"))
            try:
                output = io.StringIO()
                with contextlib.redirect_stderr(output), contextlib.redirect_stdout(io.StringIO()):
                    code = report.main(["--workdir", str(folder)])
                refused |= code == 2
                if code not in (0, 2) or (code == 2 and not _one_sentence(output.getvalue())):
                    found.failures.append((case, done, f"report: code {code}: {output.getvalue()[:200]}"))
            except BaseException as error:
                found.failures.append((case, done, f"report: {type(error).__name__}: {str(error)[:200]}"))
            found.refused += refused
            found.accepted += not refused
    return found


def _newest(folder):
    return max(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())


def _last_arrays(folder):
    with np.load(io.BytesIO(_exported(folder))) as archive:
        return {name: archive[name] for name in archive.files}


def _exported(folder):
    run = kaem.load(folder)
    buffer = io.BytesIO()
    np.savez(buffer, *[np.asarray(leaf) for leaf in jax.tree.leaves(run.params)])
    return buffer.getvalue()


def _rows(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith("perf/")} for line in lines]


def kill_runs(seed, count, finished):
    """Kills runs at random times, some several times, and lets each of them end; then compares it with `finished`."""
    found, kills = Count(), 0
    while kills < count:
        rng = random.Random(f"{seed} {found.tried}")
        found.tried += 1
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary) / "run"
            history = []
            for _ in range(min(rng.randint(1, 3), count - kills)):
                process = subprocess.Popen(command(folder), stderr=subprocess.PIPE, text=True)
                delay = rng.choice((rng.uniform(0, 3), rng.uniform(2, 8)))
                number = rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
                time.sleep(delay)
                process.send_signal(number)
                output = process.communicate(timeout=600)[1]
                kills += 1
                history.append((number.name, round(delay, 2), process.returncode))
                # A signal may come before Python can listen: while it starts, the system ends the process.
                expected = {signal.SIGKILL: (-9,), signal.SIGTERM: (75, -15), signal.SIGINT: (75, -2, 1, 130)}[number]
                if process.returncode not in (0, *expected):
                    found.failures.append((found.tried, history, output[-300:]))
            process = subprocess.run(command(folder), capture_output=True, text=True, timeout=600)
            if process.returncode != 0:
                found.failures.append((found.tried, history, process.stderr[-300:]))
                continue
            ours, theirs = _last_arrays(folder), _last_arrays(finished)
            if not all(np.array_equal(ours[name], theirs[name]) for name in theirs) or _rows(folder) != _rows(finished):
                found.failures.append((found.tried, history, "ends elsewhere"))
            else:
                found.accepted += 1
    return found


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configurations", type=int, default=2000)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    parts = {"configurations": try_configurations(given.seed, given.configurations)}
    if given.files or given.kills:
        with tempfile.TemporaryDirectory() as temporary:
            finished = pathlib.Path(temporary) / "run"
            subprocess.run(command(finished), check=True, capture_output=True)
            parts["files"] = damage_files(given.seed, given.files, finished)
            parts["kills"] = kill_runs(given.seed, given.kills, finished)
    for name, found in parts.items():
        print(json.dumps({"part": name, "seed": given.seed, "tried": found.tried, "accepted": found.accepted,
                          "refused": found.refused, "failures": len(found.failures)}), flush=True)  # fmt: skip
        for failure in found.failures:
            print(f"  FAILED {name} case {failure[0]}: {failure[1]}: {failure[2]}")
    return 1 if any(found.failures for found in parts.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
