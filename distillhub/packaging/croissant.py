"""`croissant.json`: the set described in JSON-LD, as data search engines and `mlcroissant` read it.

Written by hand rather than with mlcroissant, so that only the tests need it. Format:
http://mlcommons.org/croissant/1.0, with the array fields of its 1.1.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from distillhub.records.manifest import FileEntry

_TERMS = (
    "citeAs column conformsTo extract field fileProperty fileObject fileSet format includes"
    " isLiveDataset jsonPath key md5 parentField path recordSet references regex repeated replace"
    " samplingRate separator source subField transform"
)
_CONTEXT: dict[str, object] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "sc": "https://schema.org/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "equivalentProperty": "cr:equivalentProperty",
    **{term: f"cr:{term}" for term in _TERMS.split()},
    "conformsTo": "dct:conformsTo",
}
_TYPES = {"bool": "sc:Boolean", "float": "sc:Float", "int": "sc:Integer", "string": "sc:Text"}


class Table(NamedTuple):
    """Parquet files with the same columns."""

    shards: Mapping[str, FileEntry]
    """By path, in row order."""
    columns: "Sequence[Column]"


@dataclass(frozen=True)
class Column:
    """A Parquet column as Croissant sees it."""

    name: str
    kind: str
    """`image`, or the type of a number: `uint8`, `float16`, `bool`, ..."""
    length: int | None = None
    """Of a fixed-length list; None for single values."""


def croissant(
    *,
    name: str,
    description: str,
    rights: str,
    version: str,
    url: str | None,
    creators: Sequence[str],
    cite_as: str | None,
    tables: Mapping[str, Table],
) -> dict[str, object]:
    """The JSON-LD of a set.

    Args:
        name: Title of the set.
        description: One sentence.
        rights: License, as an identifier or a link.
        version: Semantic version.
        url: Page of the set; None before it has one.
        creators: Names of people.
        cite_as: Citation of the method.
        tables: By name; a further shard of a table is a record set of its own.
    """
    content: dict[str, object] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": re.sub(r"[^\w. -]", "_", name),
        "description": description,
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "license": rights,
        "version": version,
    }
    if cite_as:
        content["citeAs"] = cite_as
    if creators:
        content["creator"] = [{"@type": "sc:Person", "name": person} for person in creators]
    if url:
        content["url"] = url
    content["distribution"] = [
        {
            "@type": "cr:FileObject",
            "@id": path,
            "name": path,
            "contentSize": f"{entry.bytes} B",
            "contentUrl": path,
            "encodingFormat": "application/x-parquet",
            "sha256": entry.sha256,
        }
        for table in tables.values()
        for path, entry in table.shards.items()
    ]
    content["recordSet"] = [
        _record_set(name if number == 0 else f"{name}-{number:05d}", path, table.columns)
        for name, table in tables.items()
        for number, path in enumerate(table.shards)
    ]
    return content


def columns_of(features: object) -> tuple[Column, ...]:
    """The columns that `dataset_info` of a front matter lists.

    Raises:
        ValueError: If it is not such a list.
    """
    if not isinstance(features, list):
        raise ValueError("features is not a list")
    found = []
    for feature in features:
        if not isinstance(feature, dict) or not isinstance(feature.get("name"), str):
            raise ValueError(f"no feature: {feature!r}")
        kind, length = feature.get("list", feature.get("dtype")), feature.get("length")
        if isinstance(kind, dict):
            kind = "int64"  # a class label
        if not isinstance(kind, str) or not isinstance(length, int | None):
            raise ValueError(f"no feature: {feature!r}")
        found.append(Column(feature["name"], kind, length))
    return tuple(found)


def text(content: Mapping[str, object]) -> str:
    """The file's text."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _record_set(name: str, path: str, columns: Sequence[Column]) -> dict[str, object]:
    fields = [_field(name, path, column) for column in columns]
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "field": fields}


def _field(record_set: str, path: str, column: Column) -> dict[str, object]:
    source: dict[str, object] = {"fileObject": {"@id": path}, "extract": {"column": column.name}}
    if column.kind == "image":
        source["transform"] = {"jsonPath": "bytes"}
    field: dict[str, object] = {
        "@type": "cr:Field",
        "@id": f"{record_set}/{column.name}",
        "name": f"{record_set}/{column.name}",
        "dataType": "sc:ImageObject" if column.kind == "image" else _data_type(column.kind),
        "source": source,
    }
    if column.length is not None:
        field["cr:isArray"] = True
        field["cr:arrayShape"] = str(column.length)
    return field


def _data_type(kind: str) -> str:
    for prefix in ("bool", "int", "string"):
        if kind.removeprefix("u").startswith(prefix):
            return _TYPES[prefix]
    return _TYPES["float"]
