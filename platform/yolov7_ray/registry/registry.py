"""The registry: immutable versions of named models, and aliases that move between them.

    <uri>/<name>/<version>/version.json       the record, written last: without it there is no version
    <uri>/<name>/<version>/model.safetensors  folded weights
    <uri>/<name>/aliases/<alias>.json         moved by compare-and-swap
"""

import json
import os
import re
from datetime import datetime, timezone
from typing import Any

from .. import storage
from ..errors import AlreadyExists, Corrupt, JobError, NotFound
from .version import ModelVersion, StoredFile

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
REF = re.compile(rf"(?P<name>{NAME.pattern})(?:@(?P<alias>{NAME.pattern})|:(?P<version>[1-9][0-9]*))?")
"""NAME (its newest version), NAME@ALIAS or NAME:VERSION."""

MAX_ATTEMPTS = 32
"""How often a lost race for a version number or an alias is retried."""


class Registry:
    """A directory of registered models, local or on S3. Safe with many writers."""

    def __init__(self, uri: str):
        self.uri = uri

    def register(
        self, name: str, files: dict[str, bytes | str | os.PathLike], record: dict[str, Any]
    ) -> ModelVersion:
        """Store `files` (name -> bytes or local path) and `record` as the next version of `name`.

        `record` holds the fields of ModelVersion except name, version, created_at and files, which are set here.
        A writer that dies before it finishes leaves a number without a record, which does not count as a version.
        """
        _check_name("a model", name)
        version = self._claim(name)
        stored = {}
        for file_name, content in files.items():
            uri = self._join(name, version, file_name)
            if isinstance(content, bytes):
                storage.write_bytes(uri, content)
                num_bytes = len(content)
            else:
                storage.upload(content, uri)
                num_bytes = os.path.getsize(content)
            stored[file_name] = StoredFile(sha256=storage.digest(content), num_bytes=num_bytes)
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        registered = ModelVersion(name=name, version=version, created_at=now, files=stored, **record)
        storage.create(self._join(name, version, "version.json"), registered.to_json())
        return registered

    def promote(self, name: str, alias: str, version: str) -> None:
        """Point NAME@ALIAS to `version`; safe with concurrent writers."""
        _check_name("an alias", alias)
        self._record(name, version)
        uri = self._join(name, "aliases", f"{alias}.json")
        data = (json.dumps({"version": version}) + "\n").encode()
        for _ in range(MAX_ATTEMPTS):
            try:
                _, etag = storage.read_with_etag(uri)
            except NotFound:
                etag = None
            try:
                storage.compare_and_swap(uri, data, etag)
                return
            except AlreadyExists:
                continue  # a concurrent promotion won; ours is the later one
        raise JobError(uri, f"was moved by others {MAX_ATTEMPTS} times in a row", "promote again")

    def resolve(self, ref: str) -> ModelVersion:
        """The exact version that NAME, NAME@ALIAS or NAME:VERSION refers to now."""
        match = REF.fullmatch(ref)
        if match is None:
            raise JobError(ref, "is no name of a registered model", "give NAME, NAME@ALIAS or NAME:VERSION")
        name, alias, version = match["name"], match["alias"], match["version"]
        versions = self.versions(name)
        if not versions:
            raise NotFound(ref, f"model '{name}' is not registered in {self.uri}", self._available_models())
        if alias is not None:
            version = self.aliases(name).get(alias)
            if version is None:
                available = ", ".join(self.aliases(name)) or "none"
                raise NotFound(ref, f"alias '{alias}' of model '{name}' does not exist in {self.uri}",
                               f"aliases are {available}; versions are {', '.join(versions)}")
        version = version or versions[-1]
        if version not in versions:
            raise NotFound(ref, f"version {version} of model '{name}' does not exist in {self.uri}",
                           f"versions are {', '.join(versions)}")
        return self._record(name, version)

    def versions(self, name: str) -> list[str]:
        """Complete versions of `name`, oldest first; empty if there are none."""
        found = {path.split("/")[0] for path in self._paths(name) if re.fullmatch(r"[1-9][0-9]*/version\.json", path)}
        return sorted(found, key=int)

    def aliases(self, name: str) -> dict[str, str]:
        """Alias -> version of `name`."""
        aliases = {}
        for path in sorted(self._paths(name)):
            if path.startswith("aliases/") and path.endswith(".json"):
                uri = self._join(name, path)
                try:
                    aliases[path.removeprefix("aliases/").removesuffix(".json")] = storage.read_json(uri)["version"]
                except (ValueError, TypeError, KeyError) as error:
                    raise Corrupt(uri, f"is no alias ({error})", "publish with this alias again") from error
        return aliases

    def names(self) -> list[str]:
        """Names of the models that have at least one complete version."""
        paths = (re.fullmatch(r"([^/]+)/[1-9][0-9]*/version\.json", path) for path in self._paths())
        return sorted({match[1] for match in paths if match})

    def file_uri(self, version: ModelVersion, file_name: str) -> str:
        """URI of a file of a version."""
        return self._join(version.name, version.version, file_name)

    def _claim(self, name: str) -> str:
        """Claim the next free number: the writer that creates the claim file owns it, complete or not."""
        taken = [int(path.split("/")[0]) for path in self._paths(name) if re.match(r"[1-9][0-9]*/", path)]
        first = max(taken, default=0) + 1
        for number in range(first, first + MAX_ATTEMPTS):
            try:
                storage.create(self._join(name, str(number), "claim"), os.urandom(16).hex().encode())
                return str(number)
            except AlreadyExists:
                continue
        raise JobError(self._join(name), f"others claimed {MAX_ATTEMPTS} versions in a row", "publish again")

    def _record(self, name: str, version: str) -> ModelVersion:
        uri = self._join(name, version, "version.json")
        return ModelVersion.from_json(storage.read_bytes(uri), uri)

    def _paths(self, *parts: str) -> list[str]:
        return [file.path for file in storage.list_files(self._join(*parts))]

    def _join(self, *parts: str) -> str:
        return storage.join(self.uri, *parts)

    def _available_models(self) -> str:
        names = self.names()
        return f"registered are {', '.join(names)}" if names else "nothing is registered there yet; run a publish job"


def _check_name(what: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise JobError(name, f"is no name for {what}",
                       "use small letters, digits, '.', '_' and '-', at most 63, a letter or digit first")
