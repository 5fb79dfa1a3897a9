"""The command `distillhub`: parse, call the library, print; errors as what, where, mend."""

import errno
import os
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from distillhub.errors import DistillhubError, StorageError
from distillhub_cli import (
    build,
    catalog,
    clean,
    compare,
    doctor,
    evaluate,
    fetch,
    import_,
    init,
    inspect,
    materialize,
    publish,
    reproduce,
    show,
    sign,
    sweep,
    train,
    use,
)
from distillhub_cli.output import output

# Threads of torch that wait for one another by spinning make a step 20 times as long when other
# programs want the cores; read once, when torch is loaded. Results are the same.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

_STORAGE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no permission",
    errno.EISDIR: "is a folder, a file is wanted",
    errno.ENOTDIR: "a file is in the way of a folder",
    errno.EEXIST: "a file is in the way of a folder",
}


class _Group(TyperGroup):
    """Turns the library's errors into messages and exit codes: no traceback for a mistake."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except DistillhubError as error:
            output().error(error)
            raise typer.Exit(error.exit_code) from error
        except BrokenPipeError as error:  # `distillhub list models | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise typer.Exit(0) from error
        except OSError as error:
            if error.errno not in _STORAGE:
                raise
            wrapped = StorageError(
                _STORAGE[error.errno],
                where=str(error.filename or ""),
                mend="make room, change the folder's mode or name another path, then run it again; "
                "work is kept",
            )
            output().error(wrapped)
            raise typer.Exit(wrapped.exit_code) from error


app = typer.Typer(
    name="distillhub",
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 2 usage, 3 recipe invalid, 4 pipeline failed, "
    "5 verification failed, 6 publish conflict.",
)


def _version(wanted: bool) -> None:
    if wanted:
        inspect.version()
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and stop."
        ),
    ] = False,
) -> None:
    """From a recipe to a distilled image dataset that loads, is scored and can be verified."""


uses = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(
    uses,
    name="use",
    rich_help_panel="Use",
    help="Put a dataset to a further use: continual learning, network slimming.",
)


def _add(
    panel: str,
    command: Callable[..., None],
    *examples: str,
    name: str | None = None,
    to: typer.Typer = app,
) -> None:
    """Put a command into a panel of the help; its examples stand below its options."""
    epilog = "\n\n".join(
        [f"Example{'s' if len(examples) > 1 else ''}:", *(f"  distillhub {e}" for e in examples)]
    )
    to.command(name, rich_help_panel=panel, epilog=epilog if examples else None)(command)


_add("Make", build.build, "build dm_digits_10", "build my.yaml --out mine")
_add("Make", build.plan, "plan dm_digits_10")
_add("Make", build.status, "status", "status dm_digits_10 --json")
_add("Make", inspect.validate, "validate my.yaml", "validate recipes/")
_add("Make", inspect.schema, "schema --out recipe.schema.json")
_add("Make", init.init, "init ./photos", "init --project distilled", "init ./photos --project .")
_add(
    "Make",
    sweep.sweep,
    "sweep dm_digits_10 --seeds 3",
    "sweep dm_digits_10 --set method.iterations=100,500 --set ipc=1,10",
)
_add("Make", build.stage, "stage evaluate dm_digits_10")
_add(
    "Use",
    evaluate.evaluate,
    "evaluate dm_digits_10 --runs 3",
    "evaluate ./mine --data zalando-datasets/fashion_mnist --protocol lowres-1",
)
_add(
    "Use",
    import_.import_,
    "import ./images --out mine --method SRe2L --made-from ILSVRC/imagenet-1k",
    "import res_DM_CIFAR10.pt --out mine --mean 0.49,0.48,0.45 --std 0.20,0.20,0.20",
    "import org/name --out theirs",
    name="import",
)
_add(
    "Use",
    train.train,
    "train dm_digits_10 --test sklearn:digits",
    "train ylecun/mnist --model lenet --steps 500",
)
_add(
    "Use",
    use.continual,
    "use continual dm_digits_10 --steps 5",
    "use continual ./mine --data zalando-datasets/fashion_mnist --runs 3",
    to=uses,
)
_add(
    "Use",
    use.slim,
    "use slim dm_digits_10",
    "use slim dm_digits_10 --model convnet3-w32-bn --ratios 0,0.5,0.9",
    to=uses,
)
_add("Look", show.show, "show dm_digits_10", "show uoft-cs/cifar10")
_add(
    "Look",
    show.verify,
    "verify dm_digits_10",
    "verify org/dm-digits-10@v1 --full",
    "verify ./mine --key maker.key.pub",
)
_add(
    "Look",
    compare.diff,
    "diff org/dm-digits-10@v1.0.0 org/dm-digits-10@v1.1.0",
    "diff dm_digits_10 ./other --picture changed.png",
)
_add("Look", catalog.catalog, "catalog artifacts --out site", "catalog mine my-organisation")
_add("Look", inspect.list_, "list protocols", name="list")
_add(
    "Look",
    reproduce.reproduce,
    "reproduce org/dm-digits-10@v1",
    "reproduce ./fetched --evaluate-only --source uoft-cs/cifar10=/data/cifar10",
)
_add("Share", sign.keygen, "keygen ~/.config/maker.key")
_add(
    "Share",
    sign.sign,
    "sign dm_digits_10 --key ~/.config/maker.key --out signed --repo org/dm-digits-10",
)
_add(
    "Share",
    publish.publish,
    "publish dm_digits_10 --repo org/dm-digits-10 --dry-run",
    "publish dm_digits_10 --repo org/dm-digits-10 --public",
)
_add("Share", fetch.fetch, "fetch org/dm-digits-10@v1.0.0", "fetch org/dm-digits-10 --out mine")
_add(
    "Share",
    materialize.materialize,
    "materialize ./fetched --source ./imagenet --out whole",
    "materialize dsco_imagenette_700",
)
_add("Share", fetch.history, "history org/dm-digits-10")
_add("Keep house", doctor.doctor)
_add("Keep house", clean.clean, "clean --dry-run", "clean --older 7d --yes")
_add("Keep house", inspect.version)
