"""Where the numbers of a study come from: jobs, models, versions, commands, and the question."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from olmo_stages.command import again, launches
from olmo_stages.document import Problem, Source
from olmo_stages.records import TRACKING
from olmo_stages.report.kept import Done
from olmo_stages.report.parts import Part
from olmo_stages.report.pool import Undone
from olmo_stages.stages import conf_folder
from olmo_stages.statuses import Status

_SHORT = 12
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HOME = re.compile(r"^/(home|Users)/[^/]+(?=/|$)|^/root(?=/|$)")
_EXPERIMENT = re.compile(r"[+~]*experiment=(.+)")
_HEADED = re.compile(r"\b(Question|Prediction|Source|Run):\s*")


def source(job: Done, section: str) -> Source:
    """Where the numbers of a job come from.

    Args:
        job: the job.
        section: key of the section that it is in.
    """
    record = job.provenance
    return Source(
        stage=job.stage,
        reference=job.reference,
        analysis=job.about["analysis"],
        data=job.about["data"],
        folder=str(job.folder),
        digest=job.digest,
        result=job.result,
        models=_models(job),
        data_digest=str(record["data_digest"]),
        code=_code(record),
        finished=str(record.get("end", "")),
        seconds=float(record.get("seconds") or 0.0),
        tracked=_tracked(job.folder),
        section=section,
    )


def problems(found: Sequence[Undone]) -> tuple[Problem, ...]:
    """The jobs without a result, as a report shows them.

    Of a sweep that goes on nothing is said that would redo what it is about to do itself.
    """
    going_on = {it.sweep for it in found if it.status.goes_on}
    return tuple(problem(it, goes_on=it.sweep in going_on) for it in found)


def problem(undone: Undone, *, goes_on: bool = False) -> Problem:
    """A job without a result, as a report shows it.

    Args:
        undone: the job.
        goes_on: whether its sweep still runs.
    """
    status = undone.status
    waits = goes_on and not undone.damaged and (status.goes_on or status.state == "missing")
    return Problem(
        job=status.job,
        state="damaged" if undone.damaged else status.state,
        reason=" ".join((undone.damaged or status.error or _otherwise(status)).split()),
        sweep=str(undone.sweep),
        command="" if waits else "".join(again(undone.sweep, [status.job])),
    )


def _otherwise(status: Status) -> str:
    """Why a job that says nothing of itself has no result."""
    if status.state == "queued":
        return f"waits in Slurm's queue (job {status.slurm})"
    return "not finished yet" if status.state == "running" else "no reason was noted"


def versions(jobs: Sequence[Done]) -> dict[str, str]:
    """The versions that the jobs ran with, by name; several are joined with commas."""
    found: dict[str, dict[str, None]] = {}
    for job in jobs:
        for name, version in _versions(job.provenance):
            found.setdefault(name, {})[version] = None
    return {name: ", ".join(sorted(several)) for name, several in sorted(found.items())}


def mixed(part: Part) -> str:
    """Say so if the jobs of a part ran with different code or versions; else empty."""
    codes = list(dict.fromkeys(_code(job.provenance) for job in part.jobs))
    several = {name: it for name, it in versions(part.jobs).items() if ", " in it}
    told = [f"code {', '.join(codes)}"] if len(codes) > 1 else []
    told += [f"{name} {it}" for name, it in several.items() if name != "olmo-stages"]
    return f"{part.title}: its jobs did not all run with the same {'; '.join(told)}" if told else ""


def commands(sweeps: Sequence[Path]) -> tuple[str, ...]:
    """What redoes the sweeps, a command a launch, as far as it was noted."""
    return tuple(dict.fromkeys(it for sweep in sweeps for it in launches(sweep)))


def asked(sweeps: Sequence[Path]) -> tuple[str, str]:
    """Question and prediction of the study that sweeps are of; empty where they are of none.

    Of several studies each is named.
    """
    found = {
        name: header(path)
        for sweep in sweeps
        for launch in launches(sweep)
        for name, path in _experiments(launch)
        if path is not None
    }
    told: list[str] = []
    for what in ("Question", "Prediction"):
        texts = {name: it[what] for name, it in found.items() if it.get(what)}
        several = len(set(texts.values())) > 1
        lines = [f"{name}: {text}" if several else text for name, text in texts.items()]
        told.append(" ".join(dict.fromkeys(lines)))
    return told[0], told[1]


def header(path: Path) -> dict[str, str]:
    """What the comment at the head of a study's YAML says, by `Question`, `Prediction`, ...

    Returns:
        Nothing where the file cannot be read or says none of it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    comment: list[str] = []
    for line in lines:
        if not line.startswith("#"):
            break
        comment.append(line.lstrip("# ").strip())
    _, *found = _HEADED.split(" ".join(comment))  # names and texts by turns
    pairs = zip(found[::2], found[1::2], strict=True)
    return {name: text[:1].upper() + text[1:].strip() for name, text in pairs}


def _experiments(command: str) -> Iterator[tuple[str, Path | None]]:
    """The studies that a command names, with the file of each where there is one."""
    words = shlex.split(command)
    folders = [conf_folder()]
    for index, word in enumerate(words):
        flag, _, value = word.partition("=")
        if flag in {"--config-dir", "-cd"}:
            value = value or (words[index + 1] if index + 1 < len(words) else "")
            folders += [Path(value)] if value else []
    for word in words:
        if (match := _EXPERIMENT.fullmatch(word)) is not None:
            for name in match[1].split(","):
                paths = [it / "experiment" / f"{name}.yaml" for it in folders]
                yield name, next((it for it in paths if it.is_file()), None)


def _models(job: Done) -> dict[str, str]:
    """Each label with where its weights are from and which they were."""
    digests: Mapping[str, Any] = job.provenance.get("model_digests") or {}
    found: dict[str, str] = {}
    for side in (job.about["stage"], job.about["reference"]):
        if side is None:
            continue
        digest = str(digests.get(side["label"], ""))
        # A commit is looked up whole; of a digest of weights the beginning tells it from others.
        which = digest if _COMMIT.fullmatch(digest) else digest[:_SHORT]
        whence = _HOME.sub("~", str(side["source"]))
        found[side["label"]] = f"{whence}@{side['revision']} {which}".strip()
    return found


def _code(record: Mapping[str, Any]) -> str:
    version = (record.get("packages") or {}).get("olmo-stages") or "unknown"
    git = record.get("git")
    if not isinstance(git, Mapping) or not git.get("commit"):
        return f"olmo-stages {version}"
    changed = ", with changes" if git.get("dirty") else ""
    return f"olmo-stages {version} ({str(git['commit'])[:_SHORT]}{changed})"


def _versions(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, version in (record.get("packages") or {}).items():
        if version:
            yield str(name), str(version)
    if record.get("python"):
        yield "python", str(record["python"])


def _tracked(folder: Path) -> str:
    """Address of a job's W&B run, or the line that uploads it; empty where there is none."""
    try:
        note = json.loads((folder / TRACKING).read_bytes())
        address, place = note["url"], note["place"]
    except (OSError, ValueError, TypeError, KeyError):
        return ""
    if address:
        return str(address)
    from olmo_stages.tracking.sent import run_folder  # late: few have a run that waits

    return f"wandb sync {shlex.quote(str(run_folder(Path(place), folder) or place))}"
