#!/bin/bash
# train: 12 points of a study, each an element of this array.
# Each works in a run directory of its own, as a job of its own would.
#SBATCH --job-name=20260102-030405-pond-abcd-2
#SBATCH --chdir=/home/ana/pond
#SBATCH --output=/home/ana/pond/runs/20260102-030405-pond-abcd/logs/slurm.log
#SBATCH --open-mode=append
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=2
#SBATCH --time=0-00:01:30
#SBATCH --no-requeue
#SBATCH --exclude=n7,n8
#SBATCH --exclusive
#SBATCH --nice=100
#SBATCH --comment="say \"a b\""
#SBATCH --array=0-11%4
#SBATCH --dependency=afterany:17

# Until the work has begun there is nothing to save.
trap '' USR1 USR2
set -e

elements=/home/ana/pond/runs/20260102-030405-pond-abcd/slurm/20260102-030405-pond-abcd-2.txt
read -r number run < <(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" "$elements")
exec >>"$run/logs/slurm.log" 2>&1

# backend.setup
module load cuda/12.4
source ~/venv/bin/activate

exec python -P -m ai4sdk.backends.slurm "$run" "$number"
