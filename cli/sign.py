"""keygen, sign: a signature over every file of a dataset, made with a key of one's own."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from distillhub.errors import UsageError, VerificationError
from distillhub_cli.output import output, quoted
from distillhub_cli.places import complete_set, dataset_folder, shown


def keygen(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="For the private key.")],
) -> None:
    """Make a pair of Ed25519 keys: FILE to sign with, FILE.pub to check with.

    FILE can be read by its owner alone and has no passphrase; who has it can sign in your name.
    FILE.pub is for others.
    """
    from distillhub.packaging.keys import PUBLIC, make_keys

    name = make_keys(file)
    out = output()
    out.say(f"key {name}")
    out.say(f"{shown(file)} signs: keep it to yourself; {shown(file)}{PUBLIC} checks: give it away")
    out.next(quoted("distillhub", "sign", "SET", "--key", shown(file)))


def sign(
    where: Annotated[
        str,
        typer.Argument(
            metavar="SET", help="A dataset folder or a finished build.", autocompletion=complete_set
        ),
    ],
    key: Annotated[Path, typer.Option(help="Private key, as keygen makes it.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Sign a copy in a new folder. [default: in place]"),
    ] = None,
    repo: Annotated[str | None, typer.Option(help="org/name that it will be published as.")] = None,
    version: Annotated[
        str | None, typer.Option(help="Version that it will be published as.")
    ] = None,
) -> None:
    """Sign a dataset: verify it, then write a signature over every file into it.

    The signature is for the files as they are: a set that is to be published is signed under its
    address and version, which --repo and --version write into it first.
    """
    from distillhub.packaging.keys import read_private
    from distillhub.packaging.signing import sign as write
    from distillhub.packaging.stamping import stamp
    from distillhub.packaging.verify import verify

    signer = read_private(key)
    folder = dataset_folder(where)
    verdict = verify(folder)
    if verdict.faults:
        raise VerificationError.of(verdict.faults)
    if out is not None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UsageError(f"{out} is not empty", where="--out", mend="name a new folder")
        shutil.copytree(folder, out, dirs_exist_ok=True)
        folder = out
    if repo is not None or version is not None:
        stamp(folder, version=version, repo_id=repo)
    name = write(folder, signer)
    printer = output()
    printer.say(f"{shown(folder)} is signed by key {name}")
    printer.next(quoted("distillhub", "verify", shown(folder), "--key", f"{shown(key)}.pub"))
