"""Why an upload was refused. Each error carries a stable code, what was found where, and the way out."""

from __future__ import annotations


class IngestError(Exception):
    """Base: a fault of the uploaded file, told to the user who sent it.

    ``mend`` is the hint of a class whose errors all have the same way out.
    """

    code = "upload_invalid"
    blame = "user"
    mend = ""

    def __init__(self, detail: str, hint: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint or self.mend


class CheckpointFormatError(IngestError):
    """Not a checkpoint of an accepted format, or a damaged one."""

    code = "checkpoint_format"


class CheckpointNotPlainError(IngestError):
    """The file holds code or pickled objects, not only tensors."""

    code = "checkpoint_not_plain"


class CheckpointNotFiniteError(IngestError):
    """A weight is NaN or infinite."""

    code = "checkpoint_not_finite"


class DataFormatError(IngestError):
    """Not data of an accepted format, or a damaged file."""

    code = "data_format"


class ArchiveUnsafeError(IngestError):
    """An archive with names or members that no honest tool makes: paths that lead out of it, links, devices."""

    code = "archive_unsafe"


class ImageInvalidError(IngestError):
    """One image that cannot be read, or is of a kind that is not taken."""

    code = "image_invalid"


class DataShapeError(IngestError):
    """Arrays or images of the wrong shape, size or type."""

    code = "data_shape"


class PixelsOutOfRangeError(IngestError):
    """Pixels that are NaN or outside the stated range."""

    code = "pixels_out_of_range"


class LabelsInvalidError(IngestError):
    """Labels that are missing, of the wrong type or count, or all the same."""

    code = "labels_invalid"


class DatasetMissingError(IngestError):
    """A named dataset that was not fetched to this server."""

    code = "dataset_missing"


class UploadTooLargeError(IngestError):
    """More tensors, images or bytes than this server takes."""

    code = "upload_too_large"
    mend = "send less, or smaller ones"


class DiskFullError(IngestError):
    """The work folder's disk has no room left."""

    code = "storage_full"
    blame = "system"
