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
#SBATCH --time=0-00:10:00
#SBATCH --signal=B:USR1@240
#SBATCH --requeue

# Until the work has begun there is nothing to save.
trap '' USR1 USR2
set -e

exec /opt/venv/bin/python -P -m ai4sdk.backends.slurm /home/ana/pond/runs/20260102-030405-pond-abcd "$1"
