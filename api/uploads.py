"""/uploads: files that are too big for one request, resumed where they were broken off (tus), and listed as JSON."""

from __future__ import annotations

import contextlib
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from api import shapes, tus, views
from api.caller import READ, WRITE, Asking, Caller, Uploads
from api.deadlines import SlowSenderError
from api.job_form import discard, printable, shown_name
from api.receive import MEASURED, body, check_length
from api.services import Provided, Services
from api.shapes import Deleted, UploadPage
from jobs.errors import StorageError, UploadLengthError, UploadOffsetError, UploadTooLargeError
from jobs.tables import Upload
from jobs.uploads import NewUpload, UploadRepository

router = APIRouter(prefix="/uploads", tags=["uploads"], max_body_size=MEASURED)
_TUS = Depends(tus.version)
_BODY = {"requestBody": {"content": {tus.CONTENT_TYPE: {"schema": {"type": "string", "format": "binary"}}}}}


@router.options(
    "", status_code=204, response_class=Response, summary="What this tus server can do", dependencies=[READ]
)
@router.options("/{upload_id}", status_code=204, include_in_schema=False, dependencies=[READ])
async def options(asking: Asking) -> Response:
    """Versions, extensions, and the most bytes that an upload may have."""
    headers = {
        "Tus-Version": tus.VERSION,
        "Tus-Extension": tus.EXTENSIONS,
        "Tus-Checksum-Algorithm": ",".join(tus.ALGORITHMS),
        "Tus-Max-Size": str(_most(asking)),
    }
    return Response(status_code=204, headers=headers)


@router.post(
    "",
    status_code=201,
    response_class=Response,
    summary="Begin an upload (tus)",
    dependencies=[WRITE, _TUS],
    openapi_extra=_BODY,
)
async def create_upload(request: Request, asking: Asking, uploads: Uploads, services: Provided) -> Response:
    """`Upload-Length` bytes will follow, by PATCH to `Location`, the first of them also here.

    `Upload-Metadata` may name `filename`, `purpose` and `expires_after`, in seconds after its end.
    """
    size = tus.length(request)
    raw, metadata = tus.metadata(request)
    _check_size(size, asking)
    new = NewUpload(
        filename=shown_name(metadata.get("filename", "")) or "upload",
        size=size,
        standalone=True,
        purpose=printable(metadata["purpose"]) if "purpose" in metadata else None,
        tus_metadata=raw,
        keep_seconds=_keep(metadata.get("expires_after"), services),
    )
    brings = request.headers.get("content-type", "") == tus.CONTENT_TYPE
    upload = await run_in_threadpool(uploads.begin, new)
    try:
        if brings or size == 0:
            upload = await _take(request, upload, asking, uploads, services)
    except BaseException:
        # its sender never learns where it is
        await run_in_threadpool(discard, [upload], uploads, services)
        raise
    return Response(status_code=201, headers={"Location": f"/uploads/{upload.id}", **tus.describe(upload)})


@router.get("", summary="List uploads, newest first", dependencies=[READ])
def list_uploads(
    uploads: Uploads, limit: Annotated[int, Query(ge=1, le=200)] = 50, cursor: str | None = None
) -> UploadPage:
    """One page; `next` is the cursor of the page after, or null."""
    after = views.decode_cursor(cursor) if cursor else None
    found = uploads.page(limit=limit + 1, after=after)
    items = [views.upload_view(upload) for upload in found[:limit]]
    return {"items": items, "next": views.encode_cursor(found[limit - 1]) if len(found) > limit else None}


@router.head(
    "/{upload_id}",
    response_class=Response,
    summary="How much of an upload is there (tus)",
    dependencies=[READ, _TUS],
)
def head_upload(upload_id: str, uploads: Uploads) -> Response:
    """`Upload-Offset` is where to go on."""
    upload = uploads.get(upload_id)
    return Response(status_code=200, headers={"Cache-Control": "no-store", **tus.describe(upload)})


@router.get("/{upload_id}", summary="One upload", dependencies=[READ])
def get_upload(upload_id: str, uploads: Uploads) -> shapes.Upload:
    """`state` is `receiving` or `finished`; its SHA-256 once it is finished."""
    return views.upload_view(uploads.get(upload_id))


@router.patch(
    "/{upload_id}",
    status_code=204,
    response_class=Response,
    summary="Send the next bytes of an upload (tus)",
    dependencies=[WRITE, _TUS],
    openapi_extra=_BODY,
)
async def patch_upload(
    upload_id: str, request: Request, asking: Asking, uploads: Uploads, services: Provided
) -> Response:
    """From `Upload-Offset` on. What arrived of a broken request is kept, unless it has an `Upload-Checksum`."""
    if request.headers.get("content-type", "") != tus.CONTENT_TYPE:
        raise HTTPException(415, f"send Content-Type: {tus.CONTENT_TYPE}")
    offset = tus.number(request, "Upload-Offset")
    upload = await run_in_threadpool(uploads.get, upload_id)
    if offset != upload.received:
        raise UploadOffsetError(f"upload {upload_id} goes on at {upload.received}, not at {offset}")
    if "upload-length" in request.headers and upload.finished_at is None:
        size = tus.number(request, "Upload-Length")
        _check_size(size, asking)
        await run_in_threadpool(uploads.set_size, upload.id, size)
        upload = await run_in_threadpool(uploads.get, upload.id)
    upload = await _take(request, upload, asking, uploads, services)
    return Response(status_code=204, headers=tus.describe(upload))


@router.delete(
    "/{upload_id}",
    response_model=Deleted,
    responses={204: {"description": "To a tus client."}},
    summary="Delete an upload",
    dependencies=[WRITE],
)
def delete_upload(upload_id: str, request: Request, uploads: Uploads, services: Provided) -> Response:
    """Says how many bytes are free now: none where another upload has the same. 409 while a job needs it."""
    freed = uploads.delete(upload_id)
    with contextlib.suppress(StorageError):  # the rows are gone, so the files are swept
        services.storage.delete([stored.key for stored in freed])
    if "tus-resumable" in request.headers:
        return Response(status_code=204)
    return JSONResponse({"id": upload_id, "freed_bytes": sum(stored.size for stored in freed)})


async def _take(
    request: Request, upload: Upload, asking: Caller, uploads: UploadRepository, services: Services
) -> Upload:
    """The body, from the upload's end on; returns the upload as it is then."""
    most = (_most(asking) if upload.size is None else upload.size) - upload.received
    too_long = UploadLengthError(f"upload {upload.id} may have {most} more bytes")
    check_length(request, most, too_long)
    if upload.finished_at is not None:
        return upload
    checksum = tus.checksum(request)
    if checksum is not None:  # nothing of it counts before its end
        length = request.headers.get("content-length", "")
        await run_in_threadpool(uploads.check_room, int(length) if length.isdecimal() else most)
    with services.transfers.place(uploads.tenant_id):
        async with services.transfers.receiver(upload, uploads, held=checksum is not None) as receiver:
            try:
                async for chunk in body(request, most, too_long):
                    if checksum:
                        checksum.update(chunk)
                    await receiver.write(chunk)
            except (ClientDisconnect, SlowSenderError):
                if not checksum:
                    await receiver.flush()  # the next request goes on from here
                raise
            await receiver.flush()
            if checksum:
                checksum.check()
                await receiver.settle()
    return await run_in_threadpool(uploads.get, upload.id)


def _most(asking: Caller) -> int:
    return asking.limits.max_upload_bytes or MEASURED


def _check_size(size: int | None, asking: Caller) -> None:
    if size is not None and size > _most(asking):
        raise UploadTooLargeError(_most(asking))


def _keep(expires_after: str | None, services: Services) -> float | None:
    if expires_after is None:
        return services.settings.keep_uploads_seconds
    if not (expires_after.isascii() and expires_after.isdigit() and 0 < len(expires_after) <= 9):
        raise HTTPException(400, "expires_after in Upload-Metadata is not a number of seconds")
    return float(expires_after)
