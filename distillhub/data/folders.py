"""Data sets in local folders: image files by class, or Parquet files as on the Hub."""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from distillhub.data.columns import find_columns
from distillhub.data.rows import BLOCK, Chunk, EncodedRows, Index, file_facts, open_file
from distillhub.data.specs import SourceSpec
from distillhub.data.tables import ParquetRows, open_parquet
from distillhub.errors import DataError, RecipeError
from distillhub.spec import nearest

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
_SHARD = re.compile(r"(?P<split>.+?)-\d{5}-of-\d{5}(-[0-9a-f]+)?")
_NUMBER = re.compile(r"\d+|part[-.]\d+.*")


class FolderRows:
    """Image files in one folder per class; classes and files in the order of their names."""

    slow_bytes: float | None = None

    def __init__(self, root: Path, top: Path) -> None:
        """List the files.

        Args:
            root: Folder that messages are relative to.
            top: Folder of the class folders.
        """
        classes = class_folders(top)
        self._root = root
        files = [image_files(folder) for folder in classes]
        self._files = [file for listed in files for file in listed]
        self.names = tuple(folder.name for folder in classes)
        self.labels: Index = np.repeat(
            np.arange(len(classes), dtype=np.int64), [len(listed) for listed in files]
        )
        facts = [*file_facts(self._files), self.names]
        self.fingerprint = hashlib.sha256(repr(facts).encode()).hexdigest()

    def chunks(self) -> Iterator[Chunk]:
        """All files once, a block at a time."""
        for start in range(0, len(self._files), BLOCK):
            stop = min(start + BLOCK, len(self._files))
            yield Chunk(start, self.take(np.arange(start, stop)))

    def take(self, rows: Index) -> list[bytes]:
        """The bytes of the files.

        Raises:
            DataError: If a file is gone.
        """
        return [self._bytes(int(row)) for row in rows]

    def _bytes(self, row: int) -> bytes:
        try:
            return self._files[row].read_bytes()
        except OSError as error:
            reason = error.strerror or "it cannot be read"
            raise DataError(reason, where=self.where(row), mend="restore the file") from error

    def where(self, row: int) -> str:
        """The file, relative to the data set's folder."""
        return self._files[row].relative_to(self._root).as_posix()

    def open(self, stored: bytes) -> Image.Image:
        """The picture in the file's bytes."""
        return open_file(stored)


def class_folders(top: Path) -> list[Path]:
    """Folders directly below, in the order of their names, hidden ones left out."""
    if not top.is_dir():
        return []
    with os.scandir(top) as entries:
        found = [entry.name for entry in entries if entry.is_dir()]
    return [top / name for name in sorted(found) if not name.startswith((".", "__"))]


def image_files(folder: Path) -> list[Path]:
    """Image files in a folder and below, in the order of their paths."""
    return sorted(_walk(folder))


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            suffix = name[name.rfind(".") :].lower()
            if suffix in IMAGE_SUFFIXES and not name.startswith("."):
                yield Path(parent, name)


def _holds_class_folders(top: Path) -> bool:
    """Whether some folder below holds an image file directly or deeper."""
    return any(next(_walk(folder), None) for folder in class_folders(top))


def parquet_splits(root: Path, config: str | None) -> dict[str, list[Path]]:
    """The Parquet files of each split of a folder in Hub layout.

    The card's `configs` decide where there are any, else names such as `data/train-*.parquet`,
    `<config>/train-*.parquet`, `train.parquet` and `train/0000.parquet`.

    Raises:
        RecipeError: If there are several configurations and none is named, or the named one is not
            there.
    """
    configs = _card_configs(root) or _named_configs(root)
    if not configs:
        return {}
    if config is None:
        config = "default" if "default" in configs else next(iter(configs))
        if len(configs) > 1 and config != "default":
            raise RecipeError(
                f"the data set has {len(configs)} configurations: {', '.join(sorted(configs))}",
                where="dataset.config",
                mend="name one of them",
            )
    if config not in configs:
        raise RecipeError(
            f"there is no configuration '{config}'",
            where="dataset.config",
            mend=nearest(config, configs),
        )
    return configs[config]


def _card_configs(root: Path) -> dict[str, dict[str, list[Path]]]:
    """Configuration -> split -> files, as the front matter of README.md says."""
    found: dict[str, dict[str, list[Path]]] = {}
    listed = front_matter(root).get("configs")
    for entry in listed if isinstance(listed, list) else []:
        files = entry.get("data_files") if isinstance(entry, dict) else None
        pairs = files if isinstance(files, list) else []
        splits: dict[str, list[Path]] = {}
        for pair in pairs:
            if not isinstance(pair, dict) or "split" not in pair:
                continue
            paths = pair.get("path")
            for pattern in paths if isinstance(paths, list) else [paths]:
                splits.setdefault(str(pair["split"]), []).extend(_matching(root, pattern))
        if any(splits.values()):
            name = "default" if entry.get("default") else str(entry.get("config_name", "default"))
            found[name] = splits
    return found


def _matching(root: Path, pattern: object) -> list[Path]:
    """Parquet files that a pattern of the card means; none for a pattern that means no folder."""
    if not isinstance(pattern, str) or not pattern or Path(pattern).is_absolute():
        return []
    return sorted(path for path in root.glob(pattern) if path.suffix == ".parquet")


def _named_configs(root: Path) -> dict[str, dict[str, list[Path]]]:
    """Configuration -> split -> files, as the names of files and folders say."""
    found: dict[str, dict[str, list[Path]]] = {}
    for path in sorted(root.rglob("*.parquet")):
        folders = list(path.relative_to(root).parts[:-1])
        if any(part.startswith(".") for part in folders):
            continue
        shard = _SHARD.fullmatch(path.stem)
        if shard is None and _NUMBER.fullmatch(path.stem) and folders:
            split = folders.pop()
        else:
            split = shard["split"] if shard else path.stem
        config = folders[0] if folders and folders[0] != "data" else "default"
        found.setdefault(config, {}).setdefault(split, []).append(path)
    return found


def front_matter(root: Path) -> Mapping[str, object]:
    """The YAML block at the head of README.md; empty where there is none or it cannot be read."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    readme = root / "README.md"
    if not readme.is_file():
        return {}
    text = readme.read_text(encoding="utf-8", errors="replace")
    if not text.startswith("---\n"):
        return {}
    try:
        content = YAML(typ="safe", pure=True).load(text[4:].partition("\n---")[0])
    except YAMLError:
        return {}
    return content if isinstance(content, dict) else {}


def declared_names(root: Path, config: str | None) -> dict[str, list[str]]:
    """Class names by column from the card's `dataset_info`; for Parquet files that carry none."""
    info = front_matter(root).get("dataset_info")
    entries = info if isinstance(info, list) else [info]
    found: dict[str, list[str]] = {}
    for entry in entries:
        if not isinstance(entry, dict) or config not in (None, entry.get("config_name", config)):
            continue
        features = entry.get("features")
        for feature in features if isinstance(features, list) else []:
            names = _class_label_names(feature)
            if names:
                found[str(feature.get("name"))] = names
    return found


def _class_label_names(feature: object) -> list[str]:
    """Class names of one feature of a card, by label; none for other features."""
    kind = feature.get("dtype") if isinstance(feature, dict) else None
    label = kind.get("class_label") if isinstance(kind, dict) else None
    names = label.get("names") if isinstance(label, dict) else None
    if isinstance(names, dict) and all(str(number).isdecimal() for number in names):
        return [str(names[number]) for number in sorted(names, key=int)]
    return [str(name) for name in names] if isinstance(names, list) else []


class LocalFolder:
    """A folder on this machine, in Hub layout or with image files by class."""

    revision: str | None = None

    def __init__(self, spec: SourceSpec, root: Path) -> None:
        """Look at nothing yet.

        Args:
            spec: `dataset:` of a recipe.
            root: The folder.
        """
        self._spec = spec
        self._root = root

    def splits(self) -> tuple[str, ...]:
        """Names of the splits; none for class folders that stand at the top.

        Raises:
            RecipeError: If the configuration is unclear.
        """
        tables = parquet_splits(self._root, self._spec.config)
        folders = class_folders(self._root)
        return tuple(tables) or tuple(f.name for f in folders if _holds_class_folders(f))

    def rows(self, split: str) -> EncodedRows:
        """One split.

        Raises:
            RecipeError: If there is no such split or column; holds every fault.
        """
        try:
            return self._opened(split)
        except OSError as error:
            raise RecipeError(
                f"the folder cannot be read: {error.strerror or error}",
                where=f"dataset.id: {error.filename or self._root}",
                mend="see to it that every file is there and may be read",
            ) from error

    def _opened(self, split: str) -> EncodedRows:
        tables = parquet_splits(self._root, self._spec.config)
        if tables:
            return self._parquet(split, tables)
        known = self.splits()
        if split in known:
            return FolderRows(self._root, self._root / split)
        if known:
            raise self._no_split(split, known)
        if split != self._spec.train:
            raise self._no_split(split, [self._spec.train])
        if not _holds_class_folders(self._root):
            raise RecipeError(
                "the folder holds neither Parquet files nor image files in class folders",
                where=f"dataset.id: {self._root}",
                mend="expected: data/train-*.parquet, <class>/*.png or train/<class>/*.png",
            )
        return FolderRows(self._root, self._root)

    def _parquet(self, split: str, splits: Mapping[str, Sequence[Path]]) -> ParquetRows:
        if split not in splits:
            raise self._no_split(split, tuple(splits))
        files = splits[split]
        schema = open_parquet(files[0], self._root).schema_arrow
        declared = declared_names(self._root, self._spec.config)
        columns = find_columns(self._spec, schema, declared)
        return ParquetRows(files, self._root, columns, split)

    def _no_split(self, split: str, known: Sequence[str]) -> RecipeError:
        return no_split(self._spec, split, known)


def no_split(spec: SourceSpec, split: str, known: Sequence[str]) -> RecipeError:
    """The error for a split that is not there, with the way out."""
    key = "train" if split == spec.train else "test"
    way = ""
    if key == "test":
        way = "; or set apart a share of the training split (test: 0.2), or none (test: null)"
    return RecipeError(
        f"there is no split '{split}'",
        where=f"dataset.{key}",
        mend=f"{nearest(split, known)}{way}",
    )
