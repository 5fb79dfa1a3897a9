"""publish: a finished dataset to the Hub, as one commit and one tag."""

from typing import TYPE_CHECKING, Annotated

import typer

from distillhub_cli.output import output, quoted, size
from distillhub_cli.places import complete_set, dataset_folder

if TYPE_CHECKING:
    from distillhub.hub.planning import Plan

CHANGES_SHOWN = 12


def publish(
    where: Annotated[
        str,
        typer.Argument(
            metavar="SET", help="A dataset folder or a finished build.", autocompletion=complete_set
        ),
    ],
    repo: Annotated[
        str | None,
        typer.Option(help="org/name on the Hub. [default: publish.repo_id of the recipe]"),
    ] = None,
    version: Annotated[
        str | None,
        typer.Option(help="Publish it as this version. [default: what the changes call for]"),
    ] = None,
    private: Annotated[
        bool | None,
        typer.Option(
            "--private/--public",
            help="Who sees a repository that is made. [default: publish.private of the recipe]",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, and change nothing.")
    ] = False,
    allow_incomplete: Annotated[
        bool, typer.Option("--allow-incomplete", help="Publish an incomplete evaluation.")
    ] = False,
) -> None:
    """Publish a dataset: verify it, show the plan, one commit, one tag, and read it back.

    Does nothing when the Hub holds it already. After a fault, run it again: the repository is
    always the old version or the new one.
    """
    from distillhub.hub.planning import make_plan
    from distillhub.hub.publish import carry_out

    folder = dataset_folder(where)
    plan = make_plan(
        folder,
        repo_id=repo,
        version=version,
        private=private,
        allow_incomplete=allow_incomplete,
    )
    _show(plan)
    out = output()
    if dry_run:
        out.say("nothing was sent")
        return
    done = carry_out(plan)
    name, tag = plan.repository.name, plan.version.tag
    out.say(f"{name}@{tag} is commit {done.commit}; every hash and the first row were read back")
    out.next(
        quoted("distillhub", "verify", f"{name}@{tag}"),
        quoted("distillhub", "fetch", f"{name}@{tag}"),
        quoted("distillhub", "history", name),
    )


def _show(plan: "Plan") -> None:
    out = output()
    name, tag = plan.repository.name, plan.version.tag
    if plan.action == "nothing":
        out.say(f"{name}@{tag} holds this set already")
        return
    if plan.action == "tag":
        out.say(f"{name} holds this set already; its tag {tag} is missing and will be set")
        return
    kind = "private" if plan.private else "public"
    made = f", a new {kind} repository" if plan.head is None else ""
    after = f" after {plan.previous.tag}" if plan.previous else ""
    out.heading(f"plan: {name}{made}, {tag}{after}")
    files = plan.bundle.files
    rows = [
        (word, path, size(files[path].size) if path in files else "")
        for word, paths in zip(("add", "change", "delete"), plan.difference, strict=True)
        for path in paths
    ]
    out.table(("", "file", "size"), rows)
    unchanged = len(files) - len(plan.difference.added) - len(plan.difference.changed)
    out.facts([("to send", size(plan.bytes)), ("unchanged", f"{unchanged} files")])
    if plan.changes:
        out.table(
            ("change", "what"), [(found.kind, found.what) for found in plan.changes[:CHANGES_SHOWN]]
        )
