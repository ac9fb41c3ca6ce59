"""Scalars of a training for TensorBoard, which is an extra dependency."""

from collections.abc import Mapping
from pathlib import Path

from pspnet_repro.errors import UsageError, UserError, first_line


def writer_class() -> type:
    """torch's SummaryWriter. Raises UsageError where the package tensorboard cannot be used."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError("--tensorboard needs the package tensorboard, which is not installed "
                         f"({first_line(error)}): pip install tensorboard, or train without "
                         "--tensorboard") from error
    return SummaryWriter


class Scalars:
    """The files of one sitting in a folder of TensorBoard's, which is made. TensorBoard drops what
    earlier sittings wrote after step `start`."""

    def __init__(self, folder: Path, start: int):
        writer = writer_class()
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder}: must be a folder, for TensorBoard's files; choose another "
                            "--output, or move it away")
        self._writer = writer(str(folder), purge_step=start + 1)

    def add(self, steps: int, scalars: Mapping[str, float | None]) -> None:
        """Note scalars by name after so many steps; None is left out."""
        for name, value in scalars.items():
            if value is not None:
                self._writer.add_scalar(name, value, steps)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
