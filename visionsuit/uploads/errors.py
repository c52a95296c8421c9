"""Why an upload is refused."""

from typing import Any

from visionsuit.core.errors import Conflict, InvalidInput, MalformedRequest, NotFound, TooLarge


class UploadBroken(MalformedRequest):
    code = "upload_broken"


class FileTooLarge(TooLarge):
    code = "file_too_large"


class TooManyFiles(TooLarge):
    code = "too_many_files"


class MissingFile(InvalidInput):
    code = "missing_file"


class DraftNotFound(NotFound):
    code = "draft_not_found"


class DraftIncomplete(Conflict):
    code = "draft_incomplete"


class TooManyDrafts(Conflict):
    code = "too_many_drafts"


class Superseded(Conflict):
    code = "upload_superseded"


class DuplicateFile(Conflict):
    """The same bytes are in the library already, on something that the sender may see."""

    code = "duplicate_file"

    def __init__(self, message: str, *, kind: str, id: str, title: str) -> None:
        super().__init__(message, hint="Use the existing one, or send another file.")
        self.existing = {"kind": kind, "id": id, "title": title}

    def as_json(self) -> dict[str, Any]:
        return {**super().as_json(), "existing": self.existing}
