"""The errors of attachments."""

from enum import StrEnum

from godoty_service.errors import GodotyError, QuotaExceeded


class Problem(StrEnum):
    """Why bytes are no attachment."""

    TYPE = "type"
    DAMAGED = "damaged"
    SIZE = "size"
    PIXELS = "pixels"
    PAGES = "pages"
    URL = "url"


class AttachmentNotFound(GodotyError):
    """The tenant has no such attachment."""

    reason = "ATTACHMENT_NOT_FOUND"

    @classmethod
    def of(cls, attachment_id: str) -> "AttachmentNotFound":
        """Return the error for an id."""
        return cls("There is no such attachment.", metadata={"attachment_id": attachment_id})


class AttachmentRejected(GodotyError):
    """The bytes are no attachment that the server takes."""

    reason = "ATTACHMENT_REJECTED"

    @classmethod
    def of(cls, problem: Problem, text: str) -> "AttachmentRejected":
        """Return the error for a problem.

        Args:
            problem: The problem.
            text: One sentence: what was found, the figure, and what is taken.
        """
        return cls(text, metadata={"problem": problem.value})


class AttachmentLimit(QuotaExceeded):
    """The tenant has as many attachments as it may have, or an attachment is named by as many sessions as may."""

    reason = "ATTACHMENT_LIMIT"


class UploadsBusy(QuotaExceeded):
    """The attachments that are being received take as much memory as they may."""

    reason = "RATE_LIMITED"


class InputNotSupported(GodotyError):
    """A model does not take an input of the message."""

    reason = "INPUT_NOT_SUPPORTED"

    @classmethod
    def of(cls, model: str, kind: str) -> "InputNotSupported":
        """Return the error for a model and an input, such as "image"."""
        text = (
            f"The model {model} takes no input of the kind {kind}: choose another model, or leave the attachment out."
        )
        return cls(text, metadata={"model": model, "input": kind})
