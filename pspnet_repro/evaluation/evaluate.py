"""Testing a network on a data set."""

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from tqdm import tqdm

from pspnet_repro.data.labels import check_classes
from pspnet_repro.data.pairs import Pair, read_pair
from pspnet_repro.defaults import BATCH_SIZE
from pspnet_repro.distributed import ALONE, Processes
from pspnet_repro.errors import UserError
from pspnet_repro.evaluation.metrics import ConfusionMatrix
from pspnet_repro.evaluation.predictor import Predictor
from pspnet_repro.evaluation.protocol import Protocol
from pspnet_repro.evaluation.record import CountsFile
from pspnet_repro.evaluation.sliding import Network, predict_tiles


def evaluate(net: Network | Predictor, pairs: Sequence[Pair], *, classes: int, protocol: Protocol,
             batch_size: int = BATCH_SIZE, record: CountsFile | None = None,
             on_prediction: Callable[[int, Pair, np.ndarray], object] | None = None,
             on_error: Callable[[UserError], object] | None = None, progress: bool = True,
             processes: Processes = ALONE) -> ConfusionMatrix:
    """Confusion matrix of a network over image and label files, the same in every process.

    Args:
        net, classes, protocol, batch_size: see predict_tiles; or a Predictor of that protocol.
        pairs: one without a label is predicted only.
        record: images in it are not tested again, others are added to it.
        on_prediction: called with (number in the list, Pair, (H, W) uint8 classes).
        on_error: called for an image that cannot be used, which is left out; None: the error ends
            the test.
        processes: each tests its share; see distributed.join.
    Raises:
        UserError: an image or label could not be used.
    """
    check_classes(classes)
    matrix = ConfusionMatrix(classes)
    done = {} if record is None else record.done
    if processes.first:
        for counts in done.values():
            matrix.counts += counts
    share = processes.shard([item for item in enumerate(pairs) if item[0] not in done])
    reading = deque()  # what belongs to the images that are on their way
    before = len(done) // processes.size
    with tqdm(total=before + len(share), initial=before, desc="test", unit="image",
              disable=not (progress and processes.first)) as bar:
        def images():
            for number, pair in share:
                try:
                    image, label = read_pair(pair, classes)
                except UserError as error:
                    if on_error is None:
                        raise
                    on_error(error)
                    bar.update()
                    continue
                reading.append((number, pair, label, image.shape[:2]))
                yield image[:, :, ::-1]

        stream = (net.stream(images(), batch_size) if isinstance(net, Predictor) else
                  predict_tiles(net, images(), classes=classes, protocol=protocol,
                                batch_size=batch_size))
        for tiles in stream:
            number, pair, label, size = reading.popleft()
            predicted = np.empty(size, np.uint8)
            for place, probabilities in tiles:
                predicted[place] = probabilities.argmax(0).cpu().numpy()
            single = ConfusionMatrix(classes)
            if label is not None:
                single.update(predicted, label)
            matrix.counts += single.counts
            if on_prediction is not None:
                on_prediction(number, pair, predicted)
            if record is not None:
                record.append(number, single.counts)
            bar.update()
    processes.sum_array(matrix.counts)
    return matrix
