#!/bin/bash
#SBATCH --job-name=kaem
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8          # one process for each GPU: JAX gives a process under SLURM the GPU of its number
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=4
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120            # two minutes before the end: save and leave

# sbatch launch/slurm.sh --config svhn_tempered --workdir /shared/kaem --config.data.batch_size=256
# All arguments are those of kaem train. --workdir must be a folder that all nodes see.

# A job that was queued again goes on: it must not delete what it saved.
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then
  for argument; do
    shift
    [ "$argument" = --overwrite ] || set -- "$@" "$argument"
  done
fi

# Since SLURM 22.05 srun takes the cores of a task from its own flag only.
# A process that has saved may wait two minutes for the others; --kill-on-bad-exit would end them before they say so.
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=0 --wait=120 python -m kaem_jax.main "$@"
code=$?
# Interrupted and saved, or failed for a reason that may pass: queue for the rest. What never passes, a process that is
# refused while the others wait for it, would be queued for ever.
if [ "$code" -eq 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 100 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
