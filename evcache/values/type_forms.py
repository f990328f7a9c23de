"""`TypeForm`, the annotation of an argument that is a type: a class, or an expression such as `User | None`.

Type checkers know it from typing_extensions. The package does not need that at run time.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import TypeForm as TypeForm  # noqa: PLC0414  # exported
else:
    TypeForm = type
