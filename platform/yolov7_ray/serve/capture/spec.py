"""Keys of what an endpoint keeps."""

from pydantic import model_validator

from ...jobs.spec import URI, Fraction, Part

BAND = (0.25, 0.5)


class Capture(Part):
    """Images are kept as they were sent: say so to those who send them, guard the place, and let its contents expire."""

    uri: URI
    """Directory or prefix; Parquet files of a model lie in MODEL/DATE/ below it, for `source: {format: parquet}`."""
    share: Fraction = 0.01
    """Of the requests, by a hash of their id; 0: none for this reason."""
    uncertain: bool | tuple[Fraction, Fraction] = False
    """Whether to keep every image with a score from 0.25 to 0.5, or in the range given."""

    @model_validator(mode="after")
    def _check_band(self) -> "Capture":
        low, high = self.band or (0, 0)
        if low > high:
            raise ValueError(f"uncertain: {low:g} is above {high:g}")
        return self

    @property
    def band(self) -> tuple[float, float] | None:
        """Scores that are uncertain; None if that is no reason."""
        return (BAND if self.uncertain else None) if isinstance(self.uncertain, bool) else self.uncertain
