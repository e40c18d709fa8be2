"""The first training batches as the model sees them, with their boxes."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from yolov7.images.batch import Batch
from yolov7.images.draw import draw_grid, draw_truth, enlarged

NUM_IMAGES = 16
MIN_SIDE_PX, MAX_SIDE_PX = 256, 320
"""Of each image in the picture."""

Steps = Iterable[Sequence[tuple[Batch, int]]]


def with_first_drawn(steps: Steps, class_names: Sequence[str], show: Callable[[np.ndarray], None]) -> Iterator:
    """``steps``, unchanged; once `NUM_IMAGES` images have passed, or at the end, ``show`` gets a picture (H, W, 3) of them."""
    drawn: list[np.ndarray] | None = []
    for parts in steps:
        if drawn is not None:
            drawn += [image for batch, num_images in parts for image in drawn_batch(
                batch, class_names, min(num_images, NUM_IMAGES - len(drawn)))][:NUM_IMAGES - len(drawn)]
            if len(drawn) >= NUM_IMAGES:
                show(draw_grid(drawn, MAX_SIDE_PX))
                drawn = None
        yield parts
    if drawn:
        show(draw_grid(drawn, MAX_SIDE_PX))


def drawn_batch(batch: Batch, class_names: Sequence[str], most: int) -> list[np.ndarray]:
    """The first images (H, W, 3) of a batch with their targets."""
    targets = batch.targets.float().cpu().numpy()
    pictures = []
    for index in range(min(most, len(batch.images))):
        image = enlarged(batch.images[index].permute(1, 2, 0).cpu().numpy(), MIN_SIDE_PX)
        own = targets[targets[:, 0] == index]
        size = np.array([image.shape[1], image.shape[0]])
        boxes = np.concatenate((own[:, 2:4] - own[:, 4:6] / 2, own[:, 2:4] + own[:, 4:6] / 2), axis=1) * np.tile(size, 2)
        pictures.append(draw_truth(image, boxes, own[:, 1], class_names))
    return pictures
