#!/bin/bash
# train, plan sha256:0000
# One job for the run in /home/ana/pond/runs/20260102-030405-pond-abcd: it starts the tasks there, and writes down how they end.
#SBATCH --job-name=20260102-030405-pond-abcd
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

# Until the work has begun there is nothing to save.
trap '' USR1 USR2
set -e

# backend.setup
module load cuda/12.4
source ~/venv/bin/activate

exec python -P -m ai4sdk.backends.slurm /home/ana/pond/runs/20260102-030405-pond-abcd "$1"
