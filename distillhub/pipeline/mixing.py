"""What the report says of a set that is made of another build and real images."""

from collections.abc import Mapping

from pydantic import JsonValue

from distillhub.recipe.schema import ResolvedRecipe
from distillhub.records.doping import DopingBlock, ReferenceBlock
from distillhub.records.report import PrivacyBlock


def blocks_of(
    record: Mapping[str, JsonValue], recipe: ResolvedRecipe, source: str
) -> dict[str, DopingBlock | ReferenceBlock | PrivacyBlock]:
    """The blocks `doping`, `reference` and `privacy` of a report; none for other sets.

    Args:
        record: What the method told of the set.
        recipe: Resolved.
        source: Public name of the data set.
    """
    if not record:
        return {}
    doping = DopingBlock.model_validate({**record, "bases": recipe.bases})
    blocks: dict[str, DopingBlock | ReferenceBlock | PrivacyBlock] = {
        "doping": doping,
        "privacy": PrivacyBlock(
            real_pixel_share=real_pixel_share(doping, pixels=not recipe.method.by_reference)
        ),
    }
    if recipe.method.by_reference and doping.doped:
        blocks["reference"] = ReferenceBlock(
            rows=doping.doped, source=source, split=recipe.dataset.train
        )
    return blocks


def real_pixel_share(doping: DopingBlock, *, pixels: bool) -> float | None:
    """Share of the images whose real pixels are in the set; None where the base does not tell.

    Args:
        doping: Of the set.
        pixels: Whether the set holds those of its real images, or only names them.
    """
    if doping.base_real_share is None:
        return None
    held = doping.base_real_share * doping.kept + (doping.doped if pixels else 0)
    return held / (doping.kept + doping.doped)
