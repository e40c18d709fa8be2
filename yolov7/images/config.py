"""Probabilities and ranges of the augmentation."""

from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True)
class AugmentConfig:
    """Probabilities (0 to 1) and ranges of the augmentation; defaults are the P5 recipe's."""

    mosaic: float = 1.0
    """Probability that several images share the canvas; otherwise one image is letterboxed."""
    mosaic_nine: float = 0.0
    """Part of the mosaics that are made of nine images (0.2 in the official loader)."""
    close_mosaic: float = 0.0
    """Last epochs of a run that are trained without mosaic, mixup and paste-in; below 1 a share of its epochs."""
    partner_window: int = 32
    """Mosaic, mixup and paste-in draw among about this many neighbours in the epoch's order, so that
    an image decoded once serves several samples; 0: among the whole dataset."""
    mixup: float = 0.15
    """Probability that the image is blended with a second one made the same way (in the reference mosaics alone)."""
    hsv_hue: float = 0.015
    """Hue is multiplied by 1 +- this; at most 0.4."""
    hsv_saturation: float = 0.7
    """Saturation is multiplied by 1 +- this."""
    hsv_value: float = 0.4
    """Brightness is multiplied by 1 +- this."""
    rotate_degrees: float = 0.0
    """Turned by +- this."""
    translate: float = 0.2
    """Moved along each axis by +- this part of the output's side."""
    scale: float = 0.9
    """Magnified by 1 - this to 1.1 + this, each factor as likely (0.9: 0.1 to 2.0), as in the reference
    implementation; below 1. 0: not at all."""
    shear_degrees: float = 0.0
    """Each axis slanted by +- this."""
    perspective: float = 0.0
    """Homogeneous weight gained per pixel from the centre, +- this; useful up to 0.001."""
    flip_vertical: float = 0.0
    """Probability of turning upside down."""
    flip_horizontal: float = 0.5
    """Probability of mirroring left and right."""
    paste_in: float = 0.0
    """Probability that objects of other images are pasted into up to 20 free places (0.15 in P5)."""
    copy_paste: float = 0.0
    """Probability, per outlined object, that its mirror image is pasted into a free place."""

    def __post_init__(self) -> None:
        for name in ("mosaic", "mosaic_nine", "mixup", "flip_vertical", "flip_horizontal",
                     "paste_in", "copy_paste", "translate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"augment.{name}: {getattr(self, name)!r} is not within 0 to 1")
        if not 0 <= self.hsv_hue <= 0.4:
            raise ValueError(f"augment.hsv_hue: {self.hsv_hue!r} is not within 0 to 0.4")
        if self.close_mosaic < 0:
            raise ValueError(f"augment.close_mosaic: {self.close_mosaic!r} is negative")
        for name in ("scale", "hsv_saturation", "hsv_value"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"augment.{name}: {getattr(self, name)!r} is not in [0, 1)")
        if self.partner_window < 0 or 0 < self.partner_window < 4:
            raise ValueError(
                f"augment.partner_window: {self.partner_window!r} is neither 0, the whole dataset, "
                "nor at least 4, a mosaic"
            )
        if not 0 <= self.shear_degrees < 45:
            raise ValueError(
                f"augment.shear_degrees: {self.shear_degrees!r} is not from 0 to below 45"
            )

    def at(self, epoch: int, epochs: int) -> Self:
        """The augmentation of an epoch, counted from 0, of a run of ``epochs``: plain images at its end."""
        closed = round(self.close_mosaic * (epochs if self.close_mosaic < 1 else 1))
        return self if epoch < epochs - closed else replace(self, mosaic=0.0, mixup=0.0, paste_in=0.0)

    @property
    def magnification_range(self) -> tuple[float, float]:
        """Least and greatest factor that a sample is magnified by."""
        return (1 - self.scale, 1.1 + self.scale) if self.scale else (1.0, 1.0)
