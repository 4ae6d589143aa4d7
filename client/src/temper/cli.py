"""The command ``temper``: submits models to a Temper service, watches them being hardened, fetches results."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from temper import exits, modules, tables
from temper.blocking import Job
from temper.certificate import CertificateError, key_id, read, summary
from temper.certificate import verify as check
from temper.core import CATALOG, DEFAULT_URL
from temper.exits import Exit
from temper.spec import assignment, build, put
from temper.terminal import client_at, command, offer, print_json, say, show

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, epilog=exits.HELP,
    help="Submits models to a Temper service, watches them being hardened, fetches results. "
    "The key comes from TEMPER_API_KEY.",
)  # fmt: skip

_STATES = ("queued", "running", "paused", "succeeded", "failed", "cancelled")

JobId = Annotated[str, typer.Argument(metavar="ID", help="A job's id.")]
Url = Annotated[str, typer.Option(envvar="TEMPER_URL", help="Where the service is.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, for scripts; of events, one object a line.")]
Robust = Annotated[bool, typer.Option("--require-robust", help='Exit status 6 unless the verdict is "robust".')]


@command(app)
def submit(
    checkpoint: Annotated[Path | None, typer.Argument(help="The trained weights: safetensors, .pt or .pth.")] = None,
    data: Annotated[Path | None, typer.Option(help="Images and labels: npz, zip, tar or Parquet.")] = None,
    dataset: Annotated[str | None, typer.Option(help="In place of --data: one that the server has.")] = None,
    architecture: Annotated[str | None, typer.Option(help="See: temper catalog architectures.")] = None,
    defense: Annotated[str | None, typer.Option(help="See: temper catalog defenses.")] = None,
    eps: Annotated[str | None, typer.Option(help='The strength of attacks: "8/255", or a number.')] = None,
    norm: Annotated[str | None, typer.Option(help="linf, l2 or l1.", autocompletion=offer("linf", "l2", "l1"))] = None,
    epochs: Annotated[int | None, typer.Option(help="How long to train.")] = None,
    name: Annotated[str | None, typer.Option(help="What to call the job.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="PLACE=VALUE", help="Else of the spec: training.batch_size=64, model.mean=0.5,0.5,0.5."
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Wait for its end, and show how it goes.")] = False,
    require_robust: Robust = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Send a checkpoint and data, and have the model hardened."""
    fields = {"architecture": architecture, "defense": defense, "eps": eps, "norm": norm, "epochs": epochs}
    spec = build(None, **fields, name=name)
    if dataset is not None:
        put(spec, "data.dataset", dataset)
    try:
        for setting in settings or []:
            put(spec, *assignment(setting))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--set") from error
    with client_at(url, as_json=as_json) as client:
        job = client.submit(checkpoint, data=data, spec=spec)
        if as_json:
            print_json(job.info, indent=None if watch else 2)
        else:
            say(job.id)
            if not watch:
                say(f"it is {job.state}; temper watch {job.id} shows how it goes", err=True)
        if watch or require_robust:
            _watch(job, require_robust=require_robust, as_json=as_json)


@command(app)
def watch(job_id: JobId, require_robust: Robust = False, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show how a job goes until it ends; the exit status says how."""
    with client_at(url, as_json=as_json) as client:
        _watch(client.job(job_id), require_robust=require_robust, as_json=as_json)


@command(app)
def report(job_id: JobId, require_robust: Robust = False, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """How robust the model was and is, and whether that is real."""
    with client_at(url, as_json=as_json) as client:
        found = client.job(job_id).report()
        if as_json:
            print_json(found)
        else:
            show(tables.of_report(found))
        _judge(found, require_robust=require_robust)


@command(app)
def download(
    job_id: JobId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file or folder; ID-NAME here if left out.")
    ] = None,
    artifact: Annotated[
        str | None, typer.Option(help="In place of the checkpoint; temper artifacts lists them.")
    ] = None,
    file_format: Annotated[
        Literal["safetensors", "pt"] | None, typer.Option("--format", help="Else as the checkpoint came in.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace another file.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Fetch the hardened checkpoint, or another file that a job made; goes on where it was broken off."""
    with client_at(url, as_json=as_json) as client:
        path = client.job(job_id).download(output, artifact=artifact, format=file_format, overwrite=force)
    if as_json:
        print_json({"path": str(path), "size": path.stat().st_size})
    else:
        typer.echo(path)


@command(app)
def artifacts(job_id: JobId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List the files that a job made."""
    with client_at(url, as_json=as_json) as client:
        found = client.job(job_id).artifacts()
    if as_json:
        print_json(found)
    else:
        for item in found:
            say(f"{item['size']:>12,}  {item['sha256']}  {item['name']}")


@command(app)
def cancel(job_id: JobId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Cancel a job."""
    _ask(job_id, url, Job.cancel, "is being stopped", as_json=as_json)


@command(app)
def pause(job_id: JobId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Pause a running job; what it reached is saved."""
    _ask(job_id, url, Job.pause, "saves what it reached", as_json=as_json)


@command(app)
def resume(job_id: JobId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Go on with a paused job."""
    _ask(job_id, url, Job.resume, "goes on", as_json=as_json)


@command(app)
def delete(
    job_id: JobId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Without asking.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Delete a job that has ended, its report and its files, for good."""
    with client_at(url, as_json=as_json) as client:
        job = client.job(job_id)
        if not yes:
            typer.confirm(f"Delete {job.id} ({job.state}), its report and its files for good?", abort=True, err=True)
        freed = job.delete()
    if as_json:
        print_json({"id": job.id, "freed_bytes": freed})
    else:
        say(f"{job.id} is gone; {freed:,} bytes are free now")


@command(app)
def logs(
    job_id: JobId,
    tail: Annotated[int | None, typer.Option(min=0, help="Only so many lines.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Also what comes, until the job ends.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """The training log."""
    with client_at(url, as_json=as_json) as client:
        for line in client.job(job_id).log_lines(tail=tail, follow=follow):
            if as_json:
                print_json({"line": line}, indent=None)
            else:
                say(line)


@command(app, "list")
def list_jobs(
    state: Annotated[str | None, typer.Option(help="Only those in this state.", autocompletion=offer(*_STATES))] = None,
    defense: Annotated[str | None, typer.Option(help="Only those with this defense.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    with client_at(url, as_json=as_json) as client:
        found = [job.info for job in itertools.islice(client.jobs(state=state, defense=defense), limit)]
    if as_json:
        print_json(found)
    else:
        show(tables.of_jobs(found))


@command(app)
def catalog(
    kind: Annotated[
        str | None, typer.Argument(help=f"One of: {', '.join(CATALOG)}.", autocompletion=offer(*CATALOG))
    ] = None,
    name: Annotated[str | None, typer.Argument(help="One entry, with its fields.")] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """What can be asked for."""
    if kind is not None and kind not in CATALOG:
        raise typer.BadParameter(f"{kind!r} is none of {', '.join(CATALOG)}", param_hint="KIND")
    with client_at(url, as_json=as_json) as client:
        found = {kind: client.catalog(kind) for kind in ([kind] if kind else CATALOG)}
    if kind is not None and name is not None:
        entry = next((item for item in found[kind] if item["name"] == name), None)
        if entry is None:
            raise typer.BadParameter(f"there is no {name!r}; temper catalog {kind} lists all", param_hint="NAME")
        print_json(entry) if as_json else show(tables.of_entry(entry))
    elif as_json:
        print_json(found)
    else:
        for each, items in found.items():
            show(tables.of_catalog(each, items))


@command(app)
def layers(
    place: Annotated[str, typer.Argument(metavar="FILE:NAME", help="train:Net is the class Net of train.py here.")],
) -> None:
    """Print a module of your own as layers, for submit --architecture "$(temper layers train:Net)".

    The file is imported, in this Python, which needs torch.
    """
    print_json(modules.layers(modules.load(place)), indent=None)


@command(app)
def verify(
    certificate: Annotated[Path, typer.Argument(help="certificate.json of a job.")],
    weights: Annotated[Path, typer.Argument(help="The checkpoint that it is to be about.")],
    data: Annotated[Path | None, typer.Option(help="The data that was sent, to be checked too.")] = None,
    uploaded: Annotated[Path | None, typer.Option(help="The checkpoint that was sent, to be checked too.")] = None,
    keys: Annotated[
        list[Path] | None, typer.Option("--key", help="A public key in PEM that you trust; else the service is asked.")
    ] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Check a certificate's signature, and that it is about these files; exit status 7 if anything was changed."""
    if keys:
        trusted = [key.read_text() for key in keys]
    else:
        with client_at(url, as_json=as_json) as client:
            trusted = [key["public_key"] for key in client.signing_keys() if key["revoked_at"] is None]
    try:
        found = check(certificate, weights, trusted, data=data, uploaded=uploaded)
    except CertificateError as error:
        raise typer.BadParameter(str(error), param_hint="--key") from error
    holds = all(finding.ok for finding in found)
    said = read(certificate.read_bytes(), {key_id(pem): pem for pem in trusted})[0] if holds else None
    if as_json:
        findings = [{"ok": finding.ok, "sentence": finding.sentence} for finding in found]
        print_json({"holds": holds, "findings": findings, "statement": said})
    else:
        for finding in found:
            say(f"{'ok' if finding.ok else 'WRONG'}: {finding.sentence}")
        for line in summary(said) if said else []:
            say(line)
    if not holds:
        raise typer.Exit(Exit.DAMAGED)


def _watch(job: Job, *, require_robust: bool, as_json: bool) -> None:
    """Until its end. Raises: typer.Exit with a status that says how it ended."""
    if as_json:
        for event in job.events():
            print_json({"id": event.id, "type": event.type, "at": event.at, "data": event.data}, indent=None)
        job.refresh()
    else:
        job.wait()
    if job.state != "succeeded":
        raise typer.Exit(exits.OF_STATE[job.state])
    found = job.report()
    if not as_json:
        show(tables.of_report(found))
        if found["after"]:
            say(f"temper download {job.id} fetches the hardened checkpoint", err=True)
    _judge(found, require_robust=require_robust)


def _judge(report: dict[str, Any], *, require_robust: bool) -> None:
    if require_robust and report["verdict"]["kind"] != "robust":
        raise typer.Exit(Exit.NOT_ROBUST)


def _ask(job_id: str, url: str, what: Callable[[Job], None], meanwhile: str, *, as_json: bool) -> None:
    with client_at(url, as_json=as_json) as client:
        job = client.job(job_id)
        before = job.state
        what(job)
    if as_json:
        print_json(job.info)
    else:
        say(f"{job.id} {meanwhile}" if job.state == before else f"{job.id} is {job.state}")
