"""Which classes of a data set a recipe takes, and in which order."""

import difflib
import re
from collections.abc import Sequence
from typing import NamedTuple

from distillhub.errors import Fault, RecipeError
from distillhub.spec import nearest


class Synset(NamedTuple):
    """One class of ImageNet-1k."""

    wnid: str
    label: int
    """Label in ImageNet-1k, whose classes are in the order of their wnids."""
    word: str


IMAGENETTE = (
    Synset("n01440764", 0, "tench"),
    Synset("n02102040", 217, "English springer"),
    Synset("n02979186", 482, "cassette player"),
    Synset("n03000684", 491, "chain saw"),
    Synset("n03028079", 497, "church"),
    Synset("n03394916", 566, "French horn"),
    Synset("n03417042", 569, "garbage truck"),
    Synset("n03425413", 571, "gas pump"),
    Synset("n03445777", 574, "golf ball"),
    Synset("n03888257", 701, "parachute"),
)
"""The classes of ImageNette in the order of their labels."""

IMAGEWOOF = (
    Synset("n02096294", 193, "Australian terrier"),
    Synset("n02093754", 182, "Border terrier"),
    Synset("n02111889", 258, "Samoyed"),
    Synset("n02088364", 162, "beagle"),
    Synset("n02086240", 155, "Shih-Tzu"),
    Synset("n02089973", 167, "English foxhound"),
    Synset("n02087394", 159, "Rhodesian ridgeback"),
    Synset("n02115641", 273, "dingo"),
    Synset("n02099601", 207, "golden retriever"),
    Synset("n02105641", 229, "Old English sheepdog"),
)
"""The classes of ImageWoof in the order of the published labels, which is not sorted."""

IMAGENET10 = (
    Synset("n02869837", 452, "bonnet"),
    Synset("n01749939", 64, "green mamba"),
    Synset("n02488291", 374, "langur"),
    Synset("n02107142", 236, "Doberman"),
    Synset("n13037406", 993, "gyromitra"),
    Synset("n02091831", 176, "Saluki"),
    Synset("n04517823", 882, "vacuum"),
    Synset("n04589890", 904, "window screen"),
    Synset("n03062245", 503, "cocktail shaker"),
    Synset("n01773797", 74, "garden spider"),
)
"""ImageNet-10 as EDC and IDC take it, in the order of the published labels, which is not sorted."""

SUBSETS = {"imagenette": IMAGENETTE, "imagewoof": IMAGEWOOF, "imagenet10": IMAGENET10}
"""Class lists by the name that a recipe may give."""

_BY_WNID = {synset.wnid: synset for subset in SUBSETS.values() for synset in subset}
_IMAGENET_CLASSES = 1000
_WNID = re.compile(r"n\d{8}")
_WHERE = "dataset.classes"


def resolve_classes(classes: str | Sequence[str] | None, names: Sequence[str]) -> list[int]:
    """The labels of the source that a recipe takes, in the order of the new labels.

    A class is found by its whole name, by a wnid that opens its name (`n01440764 tench`), or by one
    of the words of its name (`tench, Tinca tinca`); classes of the named subsets also by their
    label, where the source has all 1000 classes.

    Args:
        classes: Name of a subset, class names, or None for all.
        names: Class names of the source in the order of its labels.

    Raises:
        RecipeError: If a class is not found, fits several, or is taken twice; holds every fault.
    """
    if classes is None:
        return list(range(len(names)))
    if isinstance(classes, str):
        if classes not in SUBSETS:
            raise RecipeError(
                f"there is no subset '{classes}'",
                where=_WHERE,
                mend=f"{nearest(classes, SUBSETS)}; or give a list of class names",
            )
        wanted: Sequence[str] = [synset.wnid for synset in SUBSETS[classes]]
    else:
        wanted = classes

    faults: list[Fault] = []
    found: list[int] = []
    if not wanted:
        faults.append(Fault("no class is named", _WHERE, "name at least two, or leave it out"))
    for name in wanted:
        match = _candidates(name, names)
        if len(match) != 1:
            faults.append(_ambiguous(name, match, names) if match else _unknown(name, names))
        elif match[0] in found:
            faults.append(Fault(f"class '{names[match[0]]}' is taken twice", _WHERE))
        else:
            found += match
    if faults:
        raise RecipeError.of(faults)
    return found


def imagenet_labels(names: Sequence[str]) -> list[int | None]:
    """The ImageNet-1k label of each class of a data set; None where it is not known.

    All 1000 classes have the order of their wnids, or that of their labels where the names hold no
    wnid. Else a class is found by the wnid that opens its name or by a word of its name, among the
    classes of the named subsets.
    """
    if len(names) == _IMAGENET_CLASSES:
        opening = [name.split()[0] if name.split() else "" for name in names]
        if all(_WNID.fullmatch(name) for name in opening):
            rank = {name: label for label, name in enumerate(sorted(opening))}
            return [rank[name] for name in opening]
        return list(range(_IMAGENET_CLASSES))
    return [_imagenet_label(name) for name in names]


def _imagenet_label(name: str) -> int | None:
    synset = _BY_WNID.get(name.partition(" ")[0])
    if synset is not None:
        return synset.label
    found = {s.label for s in _BY_WNID.values() if s.word.casefold() in _words(name)}
    return found.pop() if len(found) == 1 else None


def _candidates(name: str, names: Sequence[str]) -> list[int]:
    """Labels that a name may mean; the first rule that fits any decides."""
    whole = [label for label, known in enumerate(names) if known == name]
    if whole:
        return whole
    opened = [label for label, known in enumerate(names) if known.split()[:1] == [name]]
    if opened and name[1:].isdigit():
        return opened
    synset = _BY_WNID.get(name)
    if synset is not None and len(names) == _IMAGENET_CLASSES:
        return [synset.label]
    word = (synset.word if synset is not None else name).casefold()
    return [label for label, known in enumerate(names) if word in _words(known)]


def _words(name: str) -> list[str]:
    """The synonyms that make up a class name, without its wnid."""
    first, _, rest = name.partition(" ")
    if first[:1] == "n" and len(first) == len("n01440764") and first[1:].isdigit():
        name = rest
    return [word.strip().casefold() for word in name.split(",")]


def _unknown(name: str, names: Sequence[str]) -> Fault:
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    listed = ", ".join(repr(known) for known in (close or names[:3]))
    intro = "nearest names" if close else "first names"
    return Fault(f"there is no class '{name}'", _WHERE, f"{intro} of {len(names)}: {listed}")


def _ambiguous(name: str, match: Sequence[int], names: Sequence[str]) -> Fault:
    listed = ", ".join(repr(names[label]) for label in match[:3])
    return Fault(f"'{name}' fits {len(match)} classes: {listed}", _WHERE, "give the whole name")
