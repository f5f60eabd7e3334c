"""Checkpoints of a run: orbax behind one class."""

import dataclasses
import pathlib
import shutil
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util
from orbax.checkpoint.checkpoint_managers import preservation_policy

from kaem_jax.app.experiment.experiment import Checkpointing
from kaem_jax.errors import RunError, first_line, is_out_of_memory, is_transient
from kaem_jax.jax_utils.processes import barrier, is_writer, say
from kaem_jax.training.state import TrainState, from_nested, to_nested

Estimates = Mapping[int, tuple[float, Any]]  # held-out nats per datum and their effort, by step


def describe_damage(error: Exception) -> str:
    """One line on why a checkpoint could not be read, without the internal details of orbax."""
    return first_line(error).partition(" See full TensorStore")[0][:200]


class Checkpoints:
    """The checkpoints in a directory; a context manager that waits for the last write on exit.

    Without a `config`, which says how many to keep, the directory is only read. `estimates` decide which checkpoints
    are best; the caller adds new ones.
    """

    def __init__(self, directory: pathlib.Path, config: Checkpointing | None, estimates: Estimates | None = None):
        self.directory = directory.absolute()
        options: dict[str, Any] = {"create": False}
        if config is not None:
            policies = [preservation_policy.LatestN(config.keep_last)]
            if config.keep_best:
                policies.append(_Best({} if estimates is None else estimates, config.keep_best))
            options = {
                "preservation_policy": preservation_policy.AnyPreservationPolicy(policies),
                "cleanup_tmp_directories": True,
            }
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(**options),
            item_handlers={"state": ocp.PyTreeCheckpointHandler(), "meta": ocp.JsonCheckpointHandler()},
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._manager.close()  # waits for an asynchronous save

    @property
    def steps(self) -> list[int]:
        """Steps that have a checkpoint, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: TrainState) -> None:
        """Saves the state after `step` updates in the background; its arrays may be donated as soon as this returns."""
        nested = to_nested(state)
        meta = {"checksums": checksums(traverse_util.flatten_dict(nested, sep="/"))}
        args = ocp.args.Composite(state=ocp.args.PyTreeSave(nested), meta=ocp.args.JsonSave(meta))
        self._manager.save(step, args=args)

    def reached_preemption(self, step: int) -> bool:
        """Whether all processes of a job must stop at `step`, because one of them received a signal to stop."""
        return self._manager.reached_preemption(step)

    def wait(self) -> None:
        self._manager.wait_until_finished()

    def restore(self, step: int, template: TrainState, for_evaluation: bool = False) -> TrainState:
        """The state saved at `step` under any sharding, with the shapes, dtypes and shardings of `template`.

        `for_evaluation` replaces the optimiser's state, the root key and persistent chains by None, and widens arrays
        saved with narrower dtypes, such as float32 with jax_enable_x64 on. A checkpoint of another model is a RunError;
        damage or a full memory raise many types.
        """
        meta = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
        if for_evaluation:
            template = _without_training(template)
        wanted = to_nested(jax.tree.map(_target, template))
        stored = self._check_leaves(step, wanted, for_evaluation)
        restore = ocp.args.PyTreeRestore(
            item=wanted,
            restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
            partial_restore=for_evaluation,
        )
        nested = self._manager.restore(step, args=ocp.args.Composite(state=restore))["state"]
        found = traverse_util.flatten_dict(nested, sep="/")
        if for_evaluation:  # orbax has widened arrays to the template's dtypes; checksums are of the arrays as saved
            found = {name: leaf.astype(stored[name]) for name, leaf in found.items()}
        verify_checksums(found, meta["checksums"])
        if (held := int(nested["step"])) != step:
            raise ValueError(f"it holds step {held}: somebody copied or renamed its folder")
        return from_nested(template, nested)

    def restore_newest(self, template_of: Callable[[int], TrainState]) -> tuple[int, TrainState] | None:
        """The newest readable checkpoint as (step, state), None if there are no checkpoints.

        `template_of` gives the template of a step. Damaged newer checkpoints are moved to `damaged/`, with a warning,
        but not if none can be read, one is of another model, memory is full, or a file system does not answer.
        """
        damaged: dict[int, str] = {}
        for step in reversed(self.steps):
            try:
                state = self.restore(step, template_of(step))
            except RunError:
                raise
            except Exception as error:  # orbax and tensorstore raise many types for a truncated or missing file
                if is_out_of_memory(error) or is_transient(error):
                    raise
                damaged[step] = describe_damage(error)
                continue
            for bad, reason in damaged.items():
                say(f"warning: checkpoint {bad} is damaged ({reason}); moved to {self._set_aside(bad)}")
            return step, state
        if damaged:
            reasons = "; ".join(f"{step}: {reason}" for step, reason in damaged.items())
            raise RunError(
                f"no checkpoint in {self.directory} can be read ({reasons}); choose another --workdir, "
                "or start again with --overwrite"
            )
        return None

    def _set_aside(self, step: int) -> pathlib.Path:
        target = self.directory.parent / "damaged" / str(step)
        barrier(f"set aside {step}")
        if is_writer():
            target = target if not target.exists() else target.with_name(f"{step}-{time.time_ns()}")
            target.parent.mkdir(exist_ok=True)
            shutil.move(self.directory / str(step), target)
        barrier(f"set {step} aside")
        self._manager.reload()
        return target

    def _check_leaves(self, step: int, wanted: dict[str, Any], for_evaluation: bool) -> dict[str, np.dtype]:
        """Compares names, shapes and dtypes with the checkpoint before any array is read; returns the saved dtypes."""
        metadata = self._manager.item_metadata(step)["state"]
        if metadata is None:
            raise FileNotFoundError(f"checkpoint {step} holds no state")
        found = traverse_util.flatten_dict(metadata.tree, sep="/")
        expected = traverse_util.flatten_dict(wanted, sep="/")
        problems = [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
        if not for_evaluation:  # which leaves out what only training needs
            problems += [f"{name} is unknown to this model" for name in sorted(found.keys() - expected.keys())]
        for name in sorted(expected.keys() & found.keys()):
            have, want = found[name], expected[name]
            if jax.dtypes.issubdtype(want.dtype, jax.dtypes.prng_key):
                continue  # stored as the words of the key
            is_narrower = np.dtype(have.dtype).kind == want.dtype.kind and have.dtype.itemsize < want.dtype.itemsize
            if tuple(have.shape) != tuple(want.shape):
                problems.append(f"{name} has shape {tuple(have.shape)}, the model wants {tuple(want.shape)}")
            elif have.dtype != want.dtype and not (for_evaluation and is_narrower):
                problems.append(f"{name} has dtype {have.dtype}, the model wants {want.dtype}")
        if problems:
            more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
            raise RunError(
                f"{self.directory / str(step)} holds another model: {'; '.join(problems[:3])}{more}; make the fields "
                "prior, decoder, likelihood, posterior and optimizer of the config agree with it, or choose "
                "another --workdir"
            )
        return {name: np.dtype(leaf.dtype) for name, leaf in found.items()}


def checksums(arrays: Mapping[str, Any]) -> dict[str, int]:
    """CRC-32 of each array's bytes, by names such as "params/prior/bank/grid"; not of arrays held in part."""
    found = {}
    for name, leaf in arrays.items():
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        if leaf.is_fully_addressable or leaf.is_fully_replicated:
            found[name] = zlib.crc32(np.ascontiguousarray(leaf).tobytes())
    return found


def verify_checksums(arrays: Mapping[str, Any], saved: Mapping[str, int]) -> None:
    """Raises a ValueError if an array differs from its saved checksum; names that only one side has are ignored."""
    found = checksums(arrays)
    changed = [name for name in sorted(found.keys() & saved.keys()) if found[name] != saved[name]]
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise ValueError(f"{changed[0]}{more} does not have the values that were saved: the files changed on disk")


def _without_training(template: TrainState) -> TrainState:
    def drop_chains(path: tuple[Any, ...], leaf: Any) -> Any:
        names = [jax.tree_util.keystr((entry,), simple=True) for entry in path]
        return None if "chains" in names else leaf

    sampler = jax.tree_util.tree_map_with_path(drop_chains, template.sampler)
    nothing: Any = None
    return dataclasses.replace(template, opt_state=nothing, root_key=nothing, sampler=sampler)


def _target(leaf: Any) -> jax.ShapeDtypeStruct:
    """Shape, dtype and sharding of a restored leaf: the template's, or this process's first device if it has none."""
    sharding = getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def best_steps(steps: Sequence[int], estimates: Estimates, count: int) -> list[list[int]]:
    """For each effort, the `count` of `steps` with the highest estimates, best first; the newest effort comes first."""
    groups: dict[Any, list[int]] = {}
    for step in sorted(set(steps) & set(estimates), reverse=True):
        groups.setdefault(estimates[step][1], []).append(step)
    return [sorted(same, key=lambda step: (estimates[step][0], step), reverse=True)[:count] for same in groups.values()]


class _Best(preservation_policy.PreservationPolicy):
    """Keeps the best checkpoints of each effort, without orbax's own metrics files, which may get lost."""

    def __init__(self, estimates: Estimates, count: int):
        self._estimates, self._count = estimates, count

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        best = best_steps([info.step for info in checkpoints], self._estimates, self._count)
        return [any(info.step in steps for steps in best) for info in checkpoints]
