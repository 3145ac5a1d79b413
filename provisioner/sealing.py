"""Values on their way to another process, with their secrets: sealed whole, by a key that does not travel along.

    sealer = Sealer(new_key())
    sealed = sealer.dumps(host)     # bytes that say nothing
    sealer.loads(sealed)            # equal to host

A value without secrets needs none of this: `pickle` takes it. The seal is Fernet (https://github.com/fernet/spec):
encrypted and authenticated. Pickle executes its input. So it gets only the bytes of a holder of the key.
"""

from __future__ import annotations

import io
import pickle
from typing import Any, final

from typing_extensions import override

from provisioner.errors import NotUnsealed
from provisioner.model import Secret


def new_key() -> Secret:
    """A key for one run and the processes it starts."""
    from cryptography.fernet import Fernet

    return Secret(Fernet.generate_key().decode())


@final
class Sealer:
    """`key` is of `new_key`. As a secret it refuses to be pickled itself."""

    def __init__(self, key: Secret) -> None:
        self._key = key

    def dumps(self, value: object) -> bytes:
        """Raises TypeError or pickle.PicklingError for a value that cannot travel: a lock, a session."""
        from cryptography.fernet import Fernet

        plain = io.BytesIO()
        _Pickler(plain, pickle.HIGHEST_PROTOCOL).dump(value)
        return Fernet(self._key.reveal()).encrypt(plain.getvalue())

    def loads(self, sealed: bytes) -> Any:
        """Raises NotUnsealed: another key sealed it, or it was changed on its way."""
        from cryptography.fernet import Fernet, InvalidToken

        try:
            plain = Fernet(self._key.reveal()).decrypt(sealed)
        except InvalidToken as error:
            raise NotUnsealed("a sealed value cannot be opened: another key sealed it, or it was changed") from error
        return pickle.loads(plain)  # noqa: S301 - the seal is intact, so it is our own


class _Pickler(pickle.Pickler):
    @override
    def reducer_override(self, value: object) -> Any:
        return (Secret, (value.reveal(),)) if isinstance(value, Secret) else NotImplemented
