"""Checkpoints below an s3:// prefix, in the layout of the folder: ``state.json`` goes last and vouches for the rest."""

from __future__ import annotations

import shutil
import threading
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from ramflow import storage
from ramflow.errors import UserError
from ramflow.storage import sha256_bytes, split_address
from ramflow.train.checkpoint_files import (
    STATE_FILE,
    Note,
    Torn,
    parse_note,
    publish,
    read_note,
    step_name,
    step_of,
    verify,
    verify_files,
)

if TYPE_CHECKING:
    from ramflow.s3 import Store


class Mirror:
    """What one run keeps below ``s3://BUCKET/PREFIX``.

    :meth:`push` and :meth:`tidy` belong to one thread; they know what is there after one listing, and list again only
    after an error. :meth:`steps` and :meth:`fetch` ask the store each time, from any thread.

    Raises, in every method:
        UserError: the store refuses or fails, after the retries of :class:`ramflow.s3.Store`.
    """

    def __init__(self, address: str) -> None:
        self.bucket, self.prefix = split_address(address.rstrip("/"))
        self.address = f"s3://{self.bucket}/{self.prefix}"
        self._guard = threading.Lock()
        self._store: Store | None = None
        self._digests: dict[str, str] = {}
        """``sha256:...`` by name below the prefix, of what is there; empty where it has to be asked for."""
        self._notes: dict[int, Note] = {}
        """Of the checkpoints that this process knows to be whole there."""
        self._listed = False

    def steps(self) -> list[int]:
        """Steps of the checkpoints that have a ``state.json``, newest first."""
        return _vouched(self._list())

    def holds(self, step: int) -> bool:
        """True for a step that this process has pushed, or found there as it would be pushed."""
        return step in self._notes

    def push(self, folder: Path, step: int) -> None:
        """Copy the checkpoint ``step`` of a folder, and the best weights it names; what is there already is not sent.

        Raises:
            Torn: the one in the folder is damaged.
            OSError: it cannot be read.
        """
        note = read_note(folder / step_name(step))
        state_name, text = f"{step_name(step)}/{STATE_FILE}", note.text().encode()
        try:
            self._look()
            if not self._is_there(state_name, sha256_bytes(text)):
                if state_name in self._digests:  # of the same step, but of another course of the run
                    self._delete([state_name])
                for name, digest in note.best.items():
                    self._put(folder / name, name, digest)
                for name, digest in note.files.items():
                    self._put(folder / step_name(step) / name, f"{step_name(step)}/{name}", digest)
                self._client().create(text, self.bucket, self._key(state_name))
                self._digests[state_name] = sha256_bytes(text)
        except BaseException:
            self._listed = False
            raise
        self._notes[step] = note

    def tidy(self, keep: int) -> None:
        """Remove all but the newest ``keep`` whole checkpoints and the best weights they name, in one request.

        What killed uploads have left goes too.
        """
        self._look()
        kept = _vouched(self._digests)[:keep]
        wanted = {name for step in kept for name in self._best(step)}
        gone = [n for n in self._digests if n not in wanted and _step(n) not in kept]
        self._delete(sorted(gone, key=lambda name: not name.endswith(f"/{STATE_FILE}")))
        self._notes = {step: note for step, note in self._notes.items() if step in kept}

    def fetch(self, folder: Path, step: int) -> None:
        """Bring the checkpoint ``step`` and its best weights into a folder, whole or not at all.

        Raises:
            Torn: it is damaged there.
            OSError: the disk is full or fails.
        """
        note = self._ask(step)
        partial = folder / f"{step_name(step)}{storage.PARTIAL}"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir()
            for name, digest in note.files.items():
                self._get(f"{step_name(step)}/{name}", partial / name, digest)
            self.fetch_best(folder, note)
            (partial / STATE_FILE).write_bytes(note.text().encode())
            verify(partial)
            publish(partial)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def fetch_best(self, folder: Path, note: Note) -> None:
        """Bring the best weights that a note names, where the folder has not the right ones."""
        for name, digest in note.best.items():
            if not (folder / name).is_file() or storage.sha256_file(folder / name) != digest:
                self._get(name, folder / name, digest)

    def _client(self) -> Store:
        from ramflow.s3 import Store

        with self._guard:
            if self._store is None:
                self._store = Store()
            return self._store

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}"

    def _list(self) -> list[str]:
        keys = self._client().objects(self.bucket, self.prefix + "/")
        return [key.removeprefix(self.prefix + "/") for key, _ in keys]

    def _look(self) -> None:
        """Know what is there, the remains of killed uploads in parts excepted: these are removed."""
        if self._listed:
            return
        names = self._list()
        self._digests = {name: self._digests.get(name, "") for name in names}
        self._notes = {step: note for step, note in self._notes.items() if step in _vouched(names)}
        with suppress(UserError):  # not every store knows this, nor every user may: a rule of the bucket does it too
            self._client().abort_uploads(self.bucket, self.prefix + "/")
        self._listed = True

    def _is_there(self, name: str, digest: str) -> bool:
        if name in self._digests and not self._digests[name]:
            self._digests[name] = f"sha256:{self._client().digest(self.bucket, self._key(name))}"
        return self._digests.get(name) == digest

    def _put(self, path: Path, name: str, digest: str) -> None:
        if self._is_there(name, digest):
            return
        try:
            self._client().put(path, self.bucket, self._key(name), sha256=digest.removeprefix("sha256:"))
        except UserError:
            verify_files(path.parent, {path.name: digest})
            raise
        self._digests[name] = digest

    def _get(self, name: str, place: Path, digest: str) -> None:
        storage.download(self._client(), self.bucket, self._key(name), place, digest)

    def _delete(self, names: list[str]) -> None:
        self._client().delete(self.bucket, [self._key(name) for name in names])
        for name in names:
            del self._digests[name]

    def _best(self, step: int) -> dict[str, str]:
        with suppress(Torn):
            return (self._notes.get(step) or self._ask(step)).best
        return {}

    def _ask(self, step: int) -> Note:
        content = BytesIO()
        self._client().get(self.bucket, self._key(f"{step_name(step)}/{STATE_FILE}"), content)
        return parse_note(content.getvalue(), step)


def _step(name: str) -> int | None:
    return step_of(name.partition("/")[0])


def _vouched(names: list[str] | dict[str, str]) -> list[int]:
    found = (_step(name) for name in names if name.endswith(f"/{STATE_FILE}"))
    return sorted((step for step in found if step is not None), reverse=True)
