"""Objects that own connections, tasks or files, and so can be neither copied nor pickled."""

from __future__ import annotations

from typing import NoReturn, SupportsIndex


class Live:
    """A base class whose instances refuse `copy`, `deepcopy` and `pickle`.

    A copy would share some parts with its original and not others. For example, a copied client keeps hints and never
    delivers them.
    """

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse to be pickled or copied.

        Raises:
            TypeError: Always.
        """
        name = type(self).__qualname__
        raise TypeError(
            f"{name} cannot be copied or pickled: its connections, tasks and files belong to one object in one process."
            f" Pass its settings, and make another {name} from them"
        )
