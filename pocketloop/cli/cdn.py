"""`pocketloop cdn`: the signed repository, for the people who hold its keys; docs/operations.md tells the story."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pocketloop.cli.console import AsJson, emit, say, table
from pocketloop.contracts.errors import DeliveryError
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_delivery

if TYPE_CHECKING:
    from pocketloop.delivery.proposals import Proposal, Signatures
    from pocketloop.delivery.repository import Repository

File = Annotated[Path, typer.Argument(help="File of the proposal.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        help="The signed repository that phones fetch from: keys, proposals, signatures, upkeep.", no_args_is_help=True
    )
    group.command(epilog="Example: pocketloop cdn init")(init)
    group.command(epilog="Example: pocketloop cdn status --json")(status)
    group.command(epilog="Example: pocketloop cdn proposal")(proposal)
    group.command(
        epilog="Examples: pocketloop cdn sign    pocketloop cdn sign --key /media/usb/reviewer-1.pem    "
        'pocketloop cdn sign --key "reviewer-2=hsm:2"'
    )(sign)
    group.command(epilog="Example: pocketloop cdn publish")(publish)
    group.command(epilog="Example: pocketloop cdn discard")(discard)
    group.command("export", epilog="Example: pocketloop cdn export proposal.json")(export_proposal)
    group.command("import", epilog="Example: pocketloop cdn import proposal.json")(import_proposal)
    group.command("add-base", epilog="Example: pocketloop cdn add-base tiny")(add_base)
    group.command(epilog='Example: pocketloop cdn revoke 3f9a01c2 --reason "crashes on 3 GB phones"')(revoke)
    group.command(epilog="Examples: pocketloop cdn rotate online    pocketloop cdn rotate reviewer-2")(rotate)
    group.command("make-key", epilog="Example: pocketloop cdn make-key reviewer-4 --folder /media/usb")(make_key)
    group.command(epilog="Example: pocketloop cdn refresh   (daily, from a scheduler)")(refresh)
    group.command("gc", epilog="Example: pocketloop cdn gc --keep 20   (daily, from a scheduler)")(collect)
    group.command(epilog="Example: pocketloop cdn serve --port 8080")(serve)
    app.add_typer(group, name="cdn")


def init() -> None:
    """Hold the key ceremony: make the keys and the first metadata.

    Makes root, reviewers' and online keys as configs/delivery.yaml says, except those whose public part NAME.pub lies
    in the keys folder already (its private part then signs through signers.json). Afterwards take root and reviewers'
    private keys off this machine: it needs only the online key.
    """
    from pocketloop.delivery.repository import Repository

    home = Home()
    repository = Repository.create(load_delivery(), home)
    say(f"[bold]{repository.storage.address}[/bold] holds a repository now")
    say(f"  app       ship {repository.memory.root}: devices verify everything from it")
    say(f"  keys      {home.keys}: move root-*.pem offline and give each reviewer-*.pem to its reviewer")
    say("  backup    keep two copies of root-*.pem in different places, and one of the keys folder")
    say("  next      pocketloop cdn add-base BASE, then pocketloop cdn sign, then pocketloop cdn publish")


def status(as_json: AsJson = False) -> None:
    """Show the roles (version, expiry, threshold, keys), what is approved and served, and what waits."""
    found = _open().status()
    if as_json:
        emit(found)
        return
    from rich.markup import escape

    say(f"[bold]{found.address}[/bold]")
    rows = []
    for role in found.roles:
        keys = ", ".join(f"{key.name}{'' if key.here else ' (elsewhere)'}" for key in role.keys)
        expires = f"{role.expires:%Y-%m-%d %H:%M}" + (" (due)" if role.due else "")
        rows.append([role.role, str(role.version), expires, f"{role.threshold} of {len(role.keys)}", keys])
    table("", ["role", ">version", "expires (UTC)", "needs", "keys"], rows)
    for digest, base in found.bases.items():
        say(f"base      {digest[:12]}  {base.base} {base.quantization}")
    for digest, facts in found.adapters.items():
        say(f"adapter   {digest[:12]}  {facts.adapter}@{facts.version} on base {facts.base_digest[:12]}")
    for digest, reason in found.revoked.items():
        say(f"revoked   {digest[:12]}  {escape(reason)}")
    for policy in found.channels:
        canary = f", canary {policy.canary[:12]} at {policy.canary_ppm / 1e4:g} %" if policy.canary else ""
        stable = (policy.stable or "the base alone")[:14]
        say(f"channel   {policy.adapter} on base {policy.base_digest[:12]}: {stable}{canary}, gen. {policy.generation}")
    _say_waiting(found.proposal)


def proposal(as_json: AsJson = False) -> None:
    """Show what waits for signatures: each change against what is published. Read it before you sign."""
    found = _open().proposal()
    if as_json:
        emit(found)
        return
    if not found.versions:
        say("nothing waits")
        return
    from rich.markup import escape

    for change in found.changes:
        say(f"[bold]{change.action}[/bold]  {escape(change.what)}")
        for key, value in change.detail.items():
            say(f"    {key:14} {escape(str(value))}")
    for role, version in found.versions.items():
        say(f"[bold]signs[/bold]  {role} version {version}, valid until {found.expires[role]:%Y-%m-%d}")
    _say_waiting(found)


def sign(
    key: Annotated[
        str | None,
        typer.Option(
            help="Name of a key, path of its PEM file, or NAME=ADDRESS of a signer; without it, all keys here."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Sign what waits. Your signature says that these adapters may run on every phone: read `cdn proposal` first."""
    repository = _open()
    _say_signatures(repository, repository.sign(key), as_json)


def publish() -> None:
    """Publish what enough people signed. Killed at any moment, it leaves devices with a whole state; run it again."""
    if _open().publish():
        say("published; devices see it at their next sync")
        say("  next      pocketloop cdn status")
    else:
        say("nothing waits")


def discard() -> None:
    """Forget what waits, with the signatures that it has; what is published does not change."""
    _open().discard()
    say("nothing waits now")


def export_proposal(file: File) -> None:
    """Write what waits, with its signatures, to a file for a reviewer on another machine.

    That machine needs root.json in its keys folder and may read the repository: there the reviewer runs `cdn import`,
    `cdn proposal`, `cdn sign` and `cdn export`, and sends the file back.
    """
    _open().export_proposal(file)
    say(f"wrote {file}")
    say(f"  next      on the other machine: pocketloop cdn import {file.name}, then cdn proposal, then cdn sign")


def import_proposal(file: File, as_json: AsJson = False) -> None:
    """Take in a proposal from another machine, or the signatures that it has gathered there."""
    repository = _open()
    _say_signatures(repository, repository.import_proposal(file), as_json)


def add_base(
    base: Annotated[str, typer.Argument(help="Name of a prepared base, the start of its digest, or its folder.")],
) -> None:
    """Propose a prepared base, so that phones can fetch it."""
    from pocketloop.contracts.delivery import BaseFacts
    from pocketloop.export.base import is_whole, open_base

    folder = _find_base(Home(), base)
    if not is_whole(folder):
        raise DeliveryError(f"{folder}: a file is missing or was changed; run `pocketloop prepare-base` again")
    prepared = open_base(folder)
    manifest = prepared.manifest
    facts = BaseFacts(base=manifest.base, quantization=manifest.quantization, parameters=manifest.parameters)
    _say_waiting(_open().propose_base(prepared.quantized, facts))


def revoke(
    digest: Annotated[str, typer.Argument(help="sha256 of the file, or its first eight or more characters.")],
    reason: Annotated[str, typer.Option(help="Why; it stays in the signed metadata, for everybody to read.")],
) -> None:
    """Propose to take an adapter or a base out for ever.

    It works once reviewers have signed and `cdn publish` has run; channels that serve the file then fall back to the
    base alone. For something faster, with a softer landing, run `pocketloop rollback ADAPTER` first: that needs no
    reviewer.
    """
    repository = _open()
    known = [*repository.approved(), *repository.bases()]
    matching = [name for name in known if name.startswith(digest)] if len(digest) >= 8 else []
    if len(matching) > 1:
        raise DeliveryError(f"{digest} is the start of {len(matching)} digests; give more of it")
    _say_waiting(repository.propose_revocation(matching[0] if matching else digest, reason))


def rotate(
    name: Annotated[str, typer.Argument(help="A key (reviewer-2, root-1, online), or all of `root` or `reviewers`.")],
    as_json: AsJson = False,
) -> None:
    """Replace a key; the old one counts for nothing from then on.

    The new key is made here, unless its public part lies in the keys folder as NAME.pub (the number after the highest
    one). With `root` or `reviewers` all keys are replaced, as many and with the threshold that configs/delivery.yaml
    says now. Root keys must sign: without enough of them here, the rotation waits as a proposal.
    """
    repository = _open()
    found = repository.rotate(name)
    if found.complete and not as_json:
        say(f"rotated {name}: the old key counts for nothing now; delete its private part, and back up the new one")
    _say_signatures(repository, found, as_json)


def make_key(
    name: Annotated[str, typer.Argument(help="Name of the key, such as reviewer-4.")],
    folder: Annotated[Path | None, typer.Option(help="Where to put it; by default the keys folder.")] = None,
) -> None:
    """Make a key pair on this machine: keep NAME.pem to yourself, and give NAME.pub to whoever runs `cdn rotate`."""
    from pocketloop.delivery.keys import KeyRing

    place = folder or Home().keys
    KeyRing(place).make(name)
    say(f"made {place / name}.pem (private) and {place / name}.pub (public)")


def refresh(as_json: AsJson = False) -> None:
    """Sign again whatever expires within a third of its lifetime. Exit status 1 when people must sign something."""
    people = _open().refresh()
    if as_json:
        emit({"people": people})
    for line in people if not as_json else []:
        say(line)
    if people:
        raise typer.Exit(1)
    if not as_json:
        say("nothing expires soon")


def collect(
    keep: Annotated[
        int | None, typer.Option(min=2, help="Adapters of a channel that stay; by default keep_versions.")
    ] = None,
    grace_hours: Annotated[float, typer.Option(min=0, help="Delete what nothing has named for this long.")] = 24,
    as_json: AsJson = False,
) -> None:
    """Propose to retire old adapters, and delete files that nothing names any more.

    What a channel serves stays. A file is deleted by the second run that finds it unnamed, after the grace, so that a
    device in the middle of a sync still finishes.
    """
    repository = _open()
    wanted = keep or load_delivery().keep_versions
    deleted = repository.collect_garbage(wanted, grace=timedelta(hours=grace_hours))
    if as_json:
        emit(deleted)
        return
    for name in deleted:
        say(f"deleted   {name}")
    say(f"{len(deleted)} files deleted")
    _say_waiting(repository.proposal())


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8080,
) -> None:
    """Serve a repository that is a local folder over HTTP, for development, until interrupted."""
    from pocketloop.services.cdn import serve as run

    repository = _open()
    if repository.storage.local is None:
        raise DeliveryError(f"{repository.storage.address} is no local folder; its own server serves it")
    say(f"serving {repository.storage.local} on http://{host}:{port}; Ctrl-C stops it")
    run(repository.storage.local, host, port)


def _open() -> "Repository":
    from pocketloop.delivery.repository import Repository

    return Repository.open(load_delivery(), Home())


def _find_base(home: Home, base: str) -> Path:
    from pocketloop.export.base import open_base

    if (Path(base) / "manifest.json").is_file():
        return Path(base)
    prepared = [open_base(path.parent) for path in sorted(home.bases.glob("[!.]*/manifest.json"))]
    found = [item for item in prepared if base == item.manifest.base or item.manifest.digest.startswith(base)]
    if len(found) == 1:
        return found[0].folder
    if found:
        listed = ", ".join(f"{item.manifest.digest[:12]} ({item.manifest.quantization})" for item in found)
        raise DeliveryError(f"base {base} was prepared more than once: {listed}; give the digest")
    names = ", ".join(sorted({item.manifest.base for item in prepared})) or "none"
    raise DeliveryError(f"no prepared base {base!r} (prepared: {names}); run `pocketloop prepare-base {base}`")


def _say_signatures(repository: "Repository", found: "Signatures", as_json: bool) -> None:
    if as_json:
        emit(found)
        return
    _say_waiting(repository.proposal())


def _say_waiting(found: "Proposal") -> None:
    if not found.versions:
        say("nothing waits for signatures")
        return
    signed = found.signatures
    roles = ", ".join(f"{role} {version}" for role, version in found.versions.items())
    say(f"waiting   {roles}; signed by {', '.join(signed.have) or 'nobody yet'}")
    for line in signed.missing:
        say(f"missing   {line}")
    say(f"  next      pocketloop cdn {'publish' if signed.complete else 'proposal, then pocketloop cdn sign'}")
