"""Why a checkpoint was refused, one code a cause, each with the line that makes an acceptable file.

CheckpointFormatError                        another kind of file, or one whose parts do not agree
  Empty, Onnx, Keras, TensorFlow, Numpy, Gguf, WebPage, LfsPointer, Sharded, Packed, Encrypted
  Truncated, Archive, RecordsCompressed, Checksum, Record, Header, Offsets, Index
  NoStateDict, Key, Dtype, BigEndian, Sparse, Quantized, TensorKind, Bounds, Overlap
CheckpointNotPlainError                      what only code could load
  Legacy, TorchScript, ExportedProgram, PickledModule, Pickle
UploadTooLargeError                          more than this server takes
  TooComplex
"""

from __future__ import annotations

from ingest.errors import CheckpointFormatError, CheckpointNotPlainError, UploadTooLargeError

SAVE_HINT = 'save the weights alone: torch.save(model.state_dict(), "checkpoint.pt")'
_AGAIN = "copy or upload the file again; if that does not help, " + SAVE_HINT
_FROM_PYTORCH = "load it in PyTorch, then " + SAVE_HINT


def _save_each(change: str) -> str:
    return f'torch.save({{k: v{change} for k, v in model.state_dict().items()}}, "checkpoint.pt")'


class CheckpointEmptyError(CheckpointFormatError):
    """A file of no bytes."""

    code = "checkpoint_empty"
    mend = _AGAIN


class CheckpointOnnxError(CheckpointFormatError):
    """An ONNX graph."""

    code = "checkpoint_onnx"
    mend = "go back to the PyTorch model that it was exported from: " + SAVE_HINT


class CheckpointKerasError(CheckpointFormatError):
    """Keras weights, as HDF5 or as a .keras archive."""

    code = "checkpoint_keras"
    mend = _FROM_PYTORCH


class CheckpointTensorFlowError(CheckpointFormatError):
    """A TensorFlow graph, checkpoint or TFLite model."""

    code = "checkpoint_tensorflow"
    mend = _FROM_PYTORCH


class CheckpointNumpyError(CheckpointFormatError):
    """An .npy or .npz file."""

    code = "checkpoint_numpy"
    mend = 'torch.save({k: torch.from_numpy(v) for k, v in np.load("weights.npz").items()}, "checkpoint.pt")'


class CheckpointGgufError(CheckpointFormatError):
    """A GGUF file."""

    code = "checkpoint_gguf"
    mend = _FROM_PYTORCH


class CheckpointWebPageError(CheckpointFormatError):
    """A page that was saved in place of the file it offers."""

    code = "checkpoint_web_page"
    mend = "download the file itself and look at it before sending it: curl -L -O ADDRESS && head -c 200 FILE"


class CheckpointLfsPointerError(CheckpointFormatError):
    """The text that Git LFS leaves in place of a large file."""

    code = "checkpoint_lfs_pointer"
    mend = "git lfs pull"


class CheckpointShardedError(CheckpointFormatError):
    """The index of a checkpoint in several files."""

    code = "checkpoint_sharded"
    mend = 'save it as one file: safetensors.torch.save_file(model.state_dict(), "checkpoint.safetensors")'


class CheckpointPackedError(CheckpointFormatError):
    """An archive or compressed file around a checkpoint."""

    code = "checkpoint_packed"
    mend = "unpack it and send the one .pt, .pth or .safetensors file that is in it"


class CheckpointEncryptedError(CheckpointFormatError):
    """A zip file with a password."""

    code = "checkpoint_encrypted"
    mend = "unpack it and send the file that is in it, without a password"


class CheckpointTruncatedError(CheckpointFormatError):
    """A file whose end is missing."""

    code = "checkpoint_truncated"
    mend = _AGAIN


class CheckpointArchiveError(CheckpointFormatError):
    """A zip file that two readers could read differently."""

    code = "checkpoint_archive"
    mend = _AGAIN


class CheckpointRecordsCompressedError(CheckpointFormatError):
    """Records that are compressed; torch.save stores them."""

    code = "checkpoint_records_compressed"
    mend = SAVE_HINT


class CheckpointChecksumError(CheckpointFormatError):
    """A record that does not have its own checksum."""

    code = "checkpoint_checksum"
    mend = (
        "copy or upload the file again; if it was written without checksums, save it again after "
        "torch.serialization.set_crc32_options(True)"
    )


class CheckpointRecordError(CheckpointFormatError):
    """A record that is missing, has another size than its tensor, or that torch.save does not write."""

    code = "checkpoint_record"
    mend = SAVE_HINT


class CheckpointHeaderError(CheckpointFormatError):
    """A safetensors header that is not what the format says."""

    code = "checkpoint_header"
    mend = 'write it with the library: safetensors.torch.save_file(model.state_dict(), "checkpoint.safetensors")'


class CheckpointOffsetsError(CheckpointHeaderError):
    """Tensors of a safetensors file that overlap, leave gaps, or do not have their shape's size."""

    code = "checkpoint_offsets"


class CheckpointIndexError(CheckpointFormatError):
    """The pickle that lists the tensors is malformed."""

    code = "checkpoint_index"
    mend = SAVE_HINT


class CheckpointNoStateDictError(CheckpointFormatError):
    """No dict from names to tensors in the file."""

    code = "checkpoint_no_state_dict"
    mend = SAVE_HINT


class CheckpointKeyError(CheckpointFormatError):
    """A name that cannot be stored or shown."""

    code = "checkpoint_key"
    mend = "rename it: names are text without control characters, up to 1,000 characters"


class CheckpointDtypeError(CheckpointFormatError):
    """A tensor of a type that no classifier's weights have."""

    code = "checkpoint_dtype"
    mend = "convert it first, for example to float32: " + _save_each(".float()")


class CheckpointBigEndianError(CheckpointFormatError):
    """Written on a big-endian machine."""

    code = "checkpoint_big_endian"
    mend = "save it on a little-endian machine: " + SAVE_HINT


class CheckpointSparseError(CheckpointFormatError):
    """A sparse tensor."""

    code = "checkpoint_sparse"
    mend = _save_each(".to_dense()")


class CheckpointQuantizedError(CheckpointFormatError):
    """A quantised tensor."""

    code = "checkpoint_quantized"
    mend = "send the weights from before quantisation, or: " + _save_each(".dequantize()")


class CheckpointTensorKindError(CheckpointFormatError):
    """A tensor without data, nested, of a subclass, or a view that is negated or conjugated."""

    code = "checkpoint_tensor_kind"
    mend = _save_each(".detach().clone()")


class CheckpointBoundsError(CheckpointFormatError):
    """A tensor that reaches beyond its record, or has too many dimensions."""

    code = "checkpoint_bounds"
    mend = SAVE_HINT


class CheckpointOverlapError(CheckpointFormatError):
    """Tensors that share a part of their values: neither tied nor apart."""

    code = "checkpoint_overlap"
    mend = _save_each(".clone()")


class CheckpointLegacyError(CheckpointNotPlainError):
    """torch's format from before 1.6, several pickles in a row."""

    code = "checkpoint_legacy"
    mend = 'torch.save(torch.load("old.pt", weights_only=True), "checkpoint.pt") with torch 1.13 or later'


class CheckpointTorchScriptError(CheckpointNotPlainError):
    """A TorchScript archive."""

    code = "checkpoint_torchscript"
    mend = 'torch.save(torch.jit.load("scripted.pt").state_dict(), "checkpoint.pt"), or ' + SAVE_HINT


class CheckpointExportedProgramError(CheckpointNotPlainError):
    """An exported program (.pt2) or a torch package."""

    code = "checkpoint_exported_program"
    mend = 'torch.save(torch.export.load("model.pt2").state_dict, "checkpoint.pt"), or ' + SAVE_HINT


class CheckpointPickledModuleError(CheckpointNotPlainError):
    """A whole model, pickled with its class."""

    code = "checkpoint_pickled_module"
    mend = SAVE_HINT


class CheckpointPickleError(CheckpointNotPlainError):
    """A pickle that torch.save did not write, joblib's for one."""

    code = "checkpoint_pickle"
    mend = SAVE_HINT


class CheckpointTooLargeError(UploadTooLargeError):
    """More tensors, records or bytes than one classifier has."""

    mend = "send the weights of one classifier and nothing else: " + SAVE_HINT


class CheckpointTooComplexError(UploadTooLargeError):
    """An index that is too long or nested for weights."""

    code = "checkpoint_too_complex"
    mend = SAVE_HINT
