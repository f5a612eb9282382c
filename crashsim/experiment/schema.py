"""The JSON Schema of experiment files, for editors.

Contract: a file that `load` accepts is valid against it; it describes every key. What only the
loader can judge (values that contradict each other, files that do not exist) it lets pass.
"""

from __future__ import annotations

from typing import Any

from crashsim.experiment.disk import PROFILES
from crashsim.experiment.model import Experiment

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The schema as a plain document."""
    schema = Experiment.model_json_schema(mode="validation")
    for name, field in schema["$defs"]["Disk"]["properties"].items():
        # Their default is the profile's, which a schema cannot say.
        if name in PROFILES["consumer-nvme"] or name == "atom":
            field.pop("default", None)
    return {"$schema": DIALECT, "title": "crashsim experiment", **schema}
