"""The JSON Schema of recipes, for editors.

docs/recipe.schema.json is a copy that a test keeps current.
"""

import functools
import operator
from typing import Any

from pydantic import Field, create_model

from distillhub import methods
from distillhub.recipe.schema import Recipe


def json_schema() -> dict[str, Any]:
    """Schema of a recipe file, with the true union of all known methods under `method`."""
    union = functools.reduce(operator.or_, (methods.load(name) for name in methods.names()))
    model = create_model("Recipe", __base__=Recipe, method=(union, Field(discriminator="name")))
    schema = model.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "distillhub recipe"
    schema["properties"]["dataset"] = {"$ref": "#/$defs/SourceSpec"}
    for network in ("ModelSpec", "TrainSpec"):  # `kind` may be left out of a recipe
        if network in schema["$defs"]:
            schema["$defs"][network]["required"] = [
                key for key in schema["$defs"][network].get("required", []) if key != "kind"
            ]
    return schema
