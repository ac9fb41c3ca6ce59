"""Files of tensors hold no more than their bytes: what would fill the memory is refused."""

import os
import zipfile
from pathlib import Path
from typing import BinaryIO

import torch

from pspnet_repro.errors import UserError

_WAY = "save it again with torch.save, or take it from its source again"


def check_archive(path: str | Path, file: BinaryIO) -> None:
    """Raise UserError where an open PyTorch file's records are compressed, or larger than the file.
    torch's older files, which are no archives, pass."""
    size = file.seek(0, 2)
    if not zipfile.is_zipfile(file):
        return
    try:
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
            for record in records:
                if record.compress_type != zipfile.ZIP_STORED:
                    raise UserError(f"{path}: {record.filename} is a compressed record of "
                                    f"{record.file_size} bytes, and torch.save compresses none: "
                                    f"{_WAY}")
            total = sum(record.file_size for record in records)
            if total > size:
                raise UserError(f"{path}: its records of {total} bytes must fit in the file's "
                                f"{size}: {_WAY}")
            # Its argument is a number of bytes, which are then filled.
            if any(b"bytearray" in archive.read(record) for record in records
                   if record.filename.endswith("data.pkl")):
                raise UserError(f"{path}: must hold tensors and plain data, holds a bytearray: "
                                f"{_WAY}")
    except (zipfile.BadZipFile, RuntimeError, ValueError, EOFError, LookupError) as error:
        raise UserError(f"{path}: not a readable checkpoint: damaged or cut short ({error}); copy "
                        "or download it again") from error


def check_tensors(path: str | Path, tensors: dict[str, torch.Tensor]) -> None:
    """Raise UserError where the tensors of a file together are larger than the file."""
    size, total = os.path.getsize(path), 0
    for name, tensor in tensors.items():
        total += tensor.numel() * tensor.element_size()
        if total > size:
            raise UserError(f"{path}: {name[:80]}: its tensors up to this one have {total} bytes, "
                            f"and the file has {size}: they repeat numbers; save copies of them, "
                            "tensor.clone()")
