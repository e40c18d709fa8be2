"""Keys of a bearer token."""

import hashlib
import os
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ...errors import JobError
from ...jobs.spec import Part

Scope = Literal["detect", "metrics", "admin"]
"""What a token opens: models and detection, `/metrics` (open to all unless some token names it), or all of it and
control of the models."""
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Token(Part):
    env: str | None = None
    """Environment variable that holds the token where the job is submitted: a cluster gets the digest."""
    sha256: Digest | None = None
    """The token's digest, in place of env: `printf %s TOKEN | sha256sum`."""
    scopes: Annotated[list[Scope], Field(min_length=1)] = ["detect"]
    """detect, metrics, admin; admin includes the others."""

    @model_validator(mode="after")
    def _one_source(self) -> "Token":
        if (self.env is None) == (self.sha256 is None):
            raise ValueError("give either env or sha256")
        return self

    def digested(self, where: str) -> "Token":
        """With the digest in place of the variable; JobError, naming `where`, if that is not set here."""
        if self.env is None:
            return self
        value = os.environ.get(self.env)
        if not value:
            raise JobError(where, f"environment variable {self.env} is not set",
                           f"set it to the bearer token, or leave {where} out")
        return Token(sha256=sha256_of(value), scopes=self.scopes)


def sha256_of(token: str) -> str:
    """The digest of a token."""
    return hashlib.sha256(token.encode()).hexdigest()
