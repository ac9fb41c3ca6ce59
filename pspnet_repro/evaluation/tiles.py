"""Class probabilities of a photograph in tiles: nothing of pixels x classes need exist."""

from collections.abc import Iterator

import torch

from pspnet_repro.evaluation.imresize import BAND, bands

_COLUMNS = 64  # bands of columns a tile
_GPU_ROWS = 256  # of a tile on a GPU, which has all columns
Tile = tuple[tuple[slice, slice], torch.Tensor]


class Tiles:
    """The mean of a photograph's canvases, each resized to the photograph and renormalized.

    Iterating gives ((rows, columns), (classes, h, w) float32) for each tile: the two slices of the
    photograph that it is, and its probabilities, which the caller may change.

    Args:
        shape: (classes, height, width) of the photograph.
        canvas_sizes: (rows, columns) of the canvases that will be added.
        antialias, resize: see Protocol. What OpenCV resizes is not renormalized.

    Canvases are kept until all are there, or added up in the photograph's size where that takes
    less memory.
    """

    def __init__(self, shape: tuple[int, int, int], canvas_sizes: list[tuple[int, int]],
                 antialias: bool, resize: str = "matlab"):
        self.shape = shape
        self._antialias, self._opencv = antialias, resize == "opencv"
        self._missing = self._count = len(canvas_sizes)
        self._canvases = []
        pixels = [rows * columns for rows, columns in canvas_sizes]
        self._adds_up = sum(pixels) > max(pixels) + shape[1] * shape[2]
        self._total = None

    def add(self, canvas: torch.Tensor) -> bool:
        """Take a canvas, (classes, rows, columns) means; whether it was the last."""
        self._missing -= 1
        if self._adds_up:
            if self._total is None:
                self._total = canvas.new_zeros(self.shape)
            for (rows, columns), tile in self._resized(canvas):
                self._total[:, rows, columns] += tile
        else:
            self._canvases.append(canvas)
        return not self._missing

    def __iter__(self) -> Iterator[Tile]:
        if self._total is not None:
            for rows in _slices(self.shape[1], 64):
                yield (rows, slice(0, self.shape[2])), self._total[:, rows] / self._count
            return
        for parts in zip(*map(self._resized, self._canvases)):
            place, tile = parts[0]
            for _, other in parts[1:]:
                tile += other
            tile /= self._count
            yield place, tile

    def whole(self) -> torch.Tensor:
        """(classes, H, W) float32: all tiles in one tensor."""
        whole = None
        for (rows, columns), tile in self:
            if whole is None:
                whole = tile.new_empty(self.shape)
            whole[:, rows, columns] = tile
        return whole

    def _resized(self, canvas):
        """(place, tile) of a canvas resized to the photograph and, by MATLAB's way, renormalized.

        As products of small weight matrices with bands of the canvas.
        """
        def matrices(axis, lines):
            for out, source, matrix in bands(canvas.shape[axis], self.shape[axis],
                                             self._antialias, lines, self._opencv):
                yield out, source, torch.from_numpy(matrix).to(canvas)

        # A GPU waits for the start of each product longer than for the zeros in large ones.
        rows, whole = (BAND, BAND) if canvas.device.type == "cpu" else (_GPU_ROWS, self.shape[2])
        columns = list(matrices(2, whole))
        for out_rows, in_rows, row_matrix in matrices(1, rows):
            stretched = row_matrix @ canvas[:, in_rows]
            for few in _slices(len(columns), _COLUMNS):
                first, end = columns[few][0][0].start, columns[few][-1][0].stop
                tile = canvas.new_empty(self.shape[0], stretched.shape[1], end - first)
                for out_cols, in_cols, matrix in columns[few]:
                    tile[:, :, out_cols.start - first:out_cols.stop - first] = (
                        stretched[:, :, in_cols] @ matrix.T)
                if not self._opencv:
                    tile /= tile.sum(0, keepdim=True)
                yield (out_rows, slice(first, end)), tile


def _slices(length, step):
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]
