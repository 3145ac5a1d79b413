"""Reading vaults through the program ansible-vault; no other file here sees a vault's plaintext first.

The plaintext never enters an argument, a message or a log. Ciphertext goes in on stdin, plaintext comes out on stdout.
"""

from __future__ import annotations

import subprocess
import tempfile
from typing import Final, final

from provisioner import limits
from provisioner.environment import ask
from provisioner.inventory.origin import Where

HEADER: Final = "$ANSIBLE_VAULT;"
TIMEOUT_S: Final = 60


@final
class VaultReader:
    """Decrypts with the password in `password_file` (a file, or a program that prints it, as ansible-vault has it)."""

    def __init__(self, password_file: str, program: str = "ansible-vault") -> None:
        self._command = (program, "decrypt", "--vault-password-file", password_file, "--output", "-")
        self._known: dict[str, str] = {}

    def decrypt(self, ciphertext: str, where: Where) -> str:
        """The plaintext of one vault; each is decrypted once. Raises InventoryError naming the file."""
        if ciphertext not in self._known:
            self._known[ciphertext] = self._run(ciphertext, where)
        return self._known[ciphertext]

    def _run(self, ciphertext: str, where: Where) -> str:
        try:
            with tempfile.TemporaryFile() as stdin:
                stdin.write(ciphertext.encode())
                stdin.seek(0)
                done = ask(self._command, timeout_s=TIMEOUT_S, limit=limits.INVENTORY, stdin=stdin)
        except FileNotFoundError as error:
            raise where.error(
                f"{self._command[0]} is not installed, and this is encrypted", hint="install ansible-core"
            ) from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise where.error(f"{self._command[0]} could not be run ({type(error).__name__})") from error
        if done.returncode:
            raise where.error("cannot be decrypted", hint="check the vault password file; ansible-vault says why")
        try:
            return done.stdout.decode()
        except UnicodeDecodeError:
            raise where.error("is not text once decrypted") from None


def open_vault(ciphertext: str, where: Where, reader: VaultReader | None) -> str:
    """Decrypt, or name the file that needs a password. Raises InventoryError."""
    if reader is None:
        raise where.error("is encrypted with ansible-vault", hint="give --vault-password-file FILE")
    # ansible-vault itself is strict about blanks around the lines, while YAML's block scalars keep some
    return reader.decrypt("\n".join(line.strip() for line in ciphertext.strip().splitlines()) + "\n", where)
