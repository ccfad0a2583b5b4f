"""Slurm's own commands, and what their answers mean. A thin edge: nothing is decided here."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ai4sdk.errors import Ai4Error, EnvironmentFault, UsageError

__all__ = [
    "Job",
    "NotAnswering",
    "address_of_first",
    "associations",
    "cancel",
    "completed",
    "counted",
    "find",
    "jobs",
    "most_elements",
    "of_user",
    "offered",
    "qualities",
    "requeue",
    "restarts",
    "settings",
    "submit",
    "submit_and_note",
    "tell",
]

_ANSWER = 20.0
"""Longest time, in seconds, to wait for an answer."""
_SUBMISSION = 60.0
"""The same for a submission, which must not be given up lightly."""
_MOST_ELEMENTS = 1001
"""Slurm's own default."""
_OVER = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
)
_FROM_ENVIRONMENT = {"account": "SBATCH_ACCOUNT", "partition": "SBATCH_PARTITION", "qos": "SBATCH_QOS"}
"""What users set in their profiles for all jobs; it counts unless the script says something else."""

_MEANINGS = (
    ("invalid partition", "backend.partition=NAME; `sinfo -s` lists the partitions there are"),
    ("invalid account", "backend.account=NAME; `sacctmgr show associations user=$USER` lists yours"),
    ("invalid qos", "backend.qos=NAME; `sacctmgr show qos` lists those there are"),
    ("invalid feature", "backend.constraint=FEATURE; `sinfo -o '%N %f'` lists those of the nodes"),
    ("node configuration is not available", "ask for what a node has: `sinfo -N -o '%N %c %m %G'`; see hardware.*"),
    ("node count specification invalid", "hardware.nodes=N; `sinfo -s` tells how many nodes a partition has"),
    ("time limit specification", "hardware.wall_time=…; `sinfo -o '%P %l'` tells what partitions allow"),
    ("requested time limit is invalid", "hardware.wall_time=…; `sinfo -o '%P %l'` tells what partitions allow"),
    ("generic resource", "backend.gres=NAME and hardware.gpu_model=MODEL; `sinfo -o '%N %G'` lists those of the nodes"),
    (
        "job submit limit",
        "see `sacctmgr show qos format=name,maxsubmitpu`; fewer points at a time, or later",
    ),
    ("array specification", "the cluster allows smaller job arrays; `scontrol show config | grep MaxArraySize`"),
    ("unrecognized option", "remove it from backend.directives; `man sbatch` lists the options"),
    ("access/permission denied", "ask the cluster's administrators; `sacctmgr show associations user=$USER` may tell"),
)
"""What sbatch says, and what to do about it."""


class NotAnswering(EnvironmentFault):
    """Slurm cannot be asked: its commands are missing, or its controller does not answer."""


@dataclass(frozen=True)
class Job:
    """What Slurm knows of a job.

    Parameters
    ----------
    id
        Its number.
    state
        In Slurm's words, such as ``PENDING``, ``RUNNING``, ``CANCELLED``, ``NODE_FAIL``.
    reason
        Why it waits, in Slurm's words; empty if it does not.
    ended
        Unix time in seconds, if it has ended.
    """

    id: str
    state: str
    reason: str = ""
    ended: float | None = None

    @property
    def waits(self) -> bool:
        """Whether it is in the queue."""
        return self.state in ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")

    @property
    def over(self) -> bool:
        """Whether nothing more comes of it; of a state that is not known here something may."""
        return self.state in _OVER


def submit(script: Path, *arguments: str, options: Sequence[str] = ()) -> str:
    """Submit a script and return the job's number.

    Parameters
    ----------
    script, arguments
        What to submit.
    options
        Those of sbatch that are no part of the script.

    Raises
    ------
    NotAnswering
        If Slurm cannot be asked; the job may be in the queue nevertheless, if it was the answer that got lost.
    UsageError
        If it asks for what the cluster does not have or does not allow.
    """
    text = script.read_text(encoding="utf-8")
    kept = {name for option, name in _FROM_ENVIRONMENT.items() if f"#SBATCH --{option}=" not in text}
    env = {name: value for name, value in os.environ.items() if not name.startswith("SBATCH_") or name in kept}
    if "SLURM_JOB_ID" in env:  # submitted from within a job, whose numbers are not those of the new one
        env = {name: value for name, value in env.items() if not name.startswith("SLURM_") or name == "SLURM_CONF"}
    answer = _ask(["sbatch", "--parsable", *options, str(script), *arguments], patience=_SUBMISSION, env=env)
    return answer.strip().partition(";")[0]


def submit_and_note(
    script: Path, *arguments: str, name: str, note: Callable[[str], None], options: Sequence[str] = ()
) -> str:
    """Submit a script and write the job's number down; a job whose number cannot be kept is taken back.

    Where the answer is lost the job may be in the queue nevertheless: it is looked for.

    Parameters
    ----------
    script, arguments, options
        What to submit; see `submit`.
    name
        Of the job.
    note
        Writes the number down.
    """
    try:
        job = submit(script, *arguments, options=options)
    except NotAnswering as error:
        try:
            found = find(name)
        except Ai4Error:
            raise error from None
        if not found:
            raise
        job = found[-1]
    try:
        note(job)
    except OSError:
        cancel(job)
        raise
    return job


def offered(form: str, patience: float | None = None) -> str:
    """Return what sinfo says of all partitions in a form; nothing where it is missing or does not know the form."""
    if shutil.which("sinfo") is None:
        return ""
    try:
        return _ask(["sinfo", "--noheader", "--all", "--exact", f"--format={form}"], patience=patience or _ANSWER)
    except UsageError:
        return ""


def associations(form: str, patience: float | None = None) -> str:
    """Return what sacctmgr says of this user's accounts in a form.

    Raises
    ------
    Ai4Error
        If there is no accounting, or it may not be looked into.
    """
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise EnvironmentFault(f"user {os.geteuid()} has no name here") from None
    which = ["show", "user", "withassoc", "where", f"name={user}", f"format={form}"]
    return _ask(["sacctmgr", "--parsable2", "--noheader", "--readonly", *which], patience=patience or _ANSWER)


def qualities(patience: float | None = None) -> str:
    """Return the names of all qualities of service, a line each; raises as `associations` does."""
    which = ["show", "qos", "format=name"]
    return _ask(["sacctmgr", "--parsable2", "--noheader", "--readonly", *which], patience=patience or _ANSWER)


def settings(patience: float | None = None) -> dict[str, str]:
    """Return the cluster's own settings by their names."""
    answer = _ask(["scontrol", "show", "config"], patience=patience or _ANSWER)
    lines = (line.partition("=")[::2] for line in answer.splitlines())
    return {name.strip(): value.strip() for name, value in lines}


def of_user(option: str) -> str | None:
    """Return what the user's environment names for all jobs as account, partition or qos."""
    return os.environ.get(_FROM_ENVIRONMENT[option])


def jobs(ids: Sequence[str]) -> dict[str, Job]:
    """Return what is known of jobs, by number; of a job that Slurm has forgotten nothing is.

    One call for all of them, and a second one to the list of completed jobs if some are no longer in the queue.
    Elements of array jobs are called ``JOB_INDEX``.
    """
    found = _queued(["--jobs", _whole(ids)]) if ids else {}
    if missing := [job for job in ids if job not in found]:
        found |= completed(missing)
    return found


def completed(ids: Sequence[str]) -> dict[str, Job]:
    """Return what is known of jobs that are no longer in the queue.

    It is looked for in the accounting database or, where there is none, in the file of completed jobs.
    """
    for source in ([], ["--completion"]):
        argv = ["sacct", *source, "--noheader", "--parsable2", "--format=JobID,State,End", "--jobs", _whole(ids)]
        try:
            answer = _ask(argv if source else [*argv, "--allocations"])
        except UsageError:
            continue  # this source is not there
        found = {}
        for line in answer.splitlines():
            job, state, ended = line.split("|")
            found[job] = Job(job, state.partition(" ")[0], "", _time(ended))  # "CANCELLED by 1000"
        if found:
            return found
    return {}


def find(name: str) -> list[str]:
    """Return the numbers of the jobs of a name that Slurm has not forgotten yet, the newest last."""
    return sorted({job.partition("_")[0] for job in _queued(["--name", name])}, key=int)


def cancel(*jobs: str, waiting: bool = False) -> None:
    """End jobs; with ``waiting`` only those that have not begun."""
    _scancel([*(["--state=PENDING"] if waiting else []), *jobs])


def tell(*jobs: str, signal: str) -> None:
    """Send a signal to jobs' scripts alone; one that is not running gets none."""
    _scancel(["--state=RUNNING", "--batch", f"--signal={signal}", *jobs])


def most_elements() -> int:
    """Return how many elements an array job may have on this cluster."""
    return int(settings().get("MaxArraySize", _MOST_ELEMENTS))


def requeue(job: str) -> None:
    """Put a job that is running back into the queue."""
    _ask(["scontrol", "requeue", job])


def restarts(job: str) -> int:
    """Return how often a job was put back into the queue."""
    shown = dict(word.partition("=")[::2] for word in _ask(["scontrol", "--oneliner", "show", "job", job]).split())
    return int(shown.get("Restarts", 0))


def address_of_first(nodes: str) -> str:
    """Return the address of the first of some nodes, such as ``n[1-4]``, as Slurm itself reaches it.

    A node's name need not be known to the network.
    """
    first = _ask(["scontrol", "show", "hostnames", nodes]).split()[0]
    shown = dict(word.partition("=")[::2] for word in _ask(["scontrol", "--oneliner", "show", "node", first]).split())
    return shown.get("NodeAddr") or first


def counted(job: str) -> dict[str, float]:
    """Return what Slurm counted of a job's script while it runs: ``max_rss`` in bytes and ``cpu_time`` in seconds.

    What it does not count on this cluster is left out.
    """
    try:
        answer = _ask(["sstat", "--noheader", "--parsable2", "--format=MaxRSS,AveCPU", f"{job}.batch"])
    except Ai4Error:
        return {}
    memory, _, cpu = (answer.strip().splitlines() or [""])[0].partition("|")
    found = {"max_rss": _bytes(memory), "cpu_time": _seconds(cpu)}
    return {name: value for name, value in found.items() if value}


def _whole(ids: Sequence[str]) -> str:
    """Return jobs as Slurm's commands take them; of elements the array that they belong to, which is many at once."""
    return ",".join(dict.fromkeys(job.partition("_")[0] for job in ids))


def _scancel(argv: Sequence[str]) -> None:
    try:
        _ask(["scancel", "--quiet", *argv])
    except UsageError as error:
        # It says nothing but a status where no job fits; a job that has just ended is what was wanted.
        if not any(words in error.message.lower() for words in ("ended with status", "invalid job", "completing")):
            raise


def _queued(which: Sequence[str]) -> dict[str, Job]:
    try:
        answer = _ask(["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r|%e", *which])
    except UsageError as error:
        if "invalid job id" in error.message.lower():
            return {}
        raise
    found = {}
    for line in answer.splitlines():
        job, state, reason, ended = line.split("|")
        found[job] = Job(job, state, "" if reason == "None" else reason, _time(ended))
    return found


def _ask(argv: Sequence[str], *, patience: float = _ANSWER, env: dict[str, str] | None = None) -> str:
    env = {**(os.environ if env is None else env), "LC_ALL": "C", "SLURM_TIME_FORMAT": "%s"}
    name = argv[0]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=patience,
            env=env,
            check=False,
        )
    except FileNotFoundError:
        raise NotAnswering(
            f"there is no {name} on this machine's PATH", hint="log in to the cluster's login node, or backend=local"
        ) from None
    except subprocess.TimeoutExpired:
        raise NotAnswering(
            f"{name} gave no answer in {patience:.0f} s", hint="`scontrol ping` tells how Slurm is"
        ) from None
    except OSError as error:
        raise NotAnswering(f"{name} cannot be started: {error.strerror or error}") from error
    if done.returncode == 0:
        return done.stdout
    said = [line.partition("error: ")[2] or line for line in done.stderr.splitlines() if line.strip()]
    said = [line for line in said if not line.startswith("Try ")]
    said = [line.removeprefix("Batch job submission failed: ") for line in said]
    text = "; ".join(dict.fromkeys(said)) or f"it ended with status {done.returncode}"
    lowered = done.stderr.lower()
    if any(words in lowered for words in ("unable to contact", "timed out", "process configuration", "munge", "retry")):
        raise NotAnswering(f"Slurm does not answer: {text}", hint="`scontrol ping` tells how it is; then try again")
    hint = next((hint for words, hint in _MEANINGS if words in lowered), None)
    raise UsageError(f"{name} refused: {text}", hint=hint)


def _time(text: str) -> float | None:
    return float(text) if text.isdecimal() else None


def _bytes(text: str) -> float | None:
    """Read a size as Slurm writes it, such as ``308044K``."""
    factor = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}.get(text[-1:], 1)
    try:
        return float(text.rstrip("KMGT")) * factor
    except ValueError:
        return None


def _seconds(text: str) -> float | None:
    """Read a span as Slurm writes it, such as ``1-02:03:04`` or ``03:04.567``."""
    days, _, clock = text.rpartition("-")
    try:
        total = 0.0
        for part in clock.split(":"):
            total = total * 60 + float(part)
        return total + 86400 * int(days or 0)
    except ValueError:
        return None
