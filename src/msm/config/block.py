"""What all blocks of settings share.

null means automatic: a field that is not given, or null, gets its value from the other settings. `model_fields_set`
says what was asked; what the fields hold is what runs.
"""

import reprlib
from collections.abc import Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict
from pydantic import model_validator as check
from pydantic_core import PydanticCustomError

AnyBlock = TypeVar("AnyBlock", bound="Block")
AUTOMATIC: Any = None  # default of a field whose value `Config` finds


def refuse(field: str, reason: str) -> PydanticCustomError:
    """An error of a check over several fields, blamed on one of them."""
    return refuse_all([(field, reason)])


def refuse_all(faults: Sequence[tuple[str, str]]) -> PydanticCustomError:
    """An error of several such checks: field and reason of each."""
    return PydanticCustomError("refused", "{faults}", {"faults": list(faults)})


class Block(BaseModel):
    """Frozen, unknown keys refused, finite numbers, no true or false for a number, null for what is not given."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @check(mode="before")
    @classmethod
    def _no_bool_and_null_for_automatic(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        fields = cls.model_fields
        for name, value in data.items():
            field = fields.get(name)
            values = value if isinstance(value, list | tuple) else [value]
            if field and field.annotation is not bool and any(isinstance(v, bool) for v in values):
                raise refuse(name, f"found {reprlib.repr(value)}; it should not be true or false")
        can_be_none = {name for name, field in fields.items() if type(None) in get_args(field.annotation)}
        return {n: v for n, v in data.items() if v is not None or n in can_be_none or n not in fields}

    def with_found(self: AnyBlock, values: dict[str, Any]) -> AnyBlock:
        """A copy with other values for what runs, while what was asked stays what it was."""
        copy = self.model_copy(update=values)
        object.__setattr__(copy, "__pydantic_fields_set__", set(self.model_fields_set))
        return copy

    def with_automatic(self: AnyBlock, values: dict[str, Any]) -> AnyBlock:
        """A copy with values for the fields that were not given, which count as not given in it too."""
        return self.with_found({k: v for k, v in values.items() if k not in self.model_fields_set})
