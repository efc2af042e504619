"""How slow an upload may be: a balance of seconds that waiting uses up and bytes refill."""

from __future__ import annotations

from services.common.errors import InvalidRequestError


class UploadRate:
    """The patience for one upload.

    An upload may pause as long as it was fast before: every byte refills the balance, up to the longest pause. Only the time that is spent waiting for
    the caller counts, not that for the disk.

    Args:
        least: bytes a second that keep the balance; 0 for no limit.
        grace: seconds of the balance at first.
        longest: most seconds that the balance holds, at least ``grace``.
    """

    def __init__(self, least: int, grace: float, longest: float) -> None:
        self._least = least
        self._longest = longest
        self._left = min(grace, longest) if least else longest

    @property
    def patience(self) -> float:
        """Seconds that may be waited for the next chunk."""
        return self._left if self._least else self._longest

    def note(self, waited: float, count: int) -> None:
        """Count a chunk.

        Args:
            waited: seconds that were waited for it.
            count: its bytes.

        Raises:
            InvalidRequestError: UPLOAD_TOO_SLOW.
        """
        if not self._least:
            return
        self._left = min(self._longest, self._left - waited + count / self._least)
        if self._left <= 0.0:
            raise self.too_slow()

    def too_slow(self) -> InvalidRequestError:
        """The error of an upload whose balance is used up."""
        return InvalidRequestError(
            "UPLOAD_TOO_SLOW", f"The slide comes more slowly than {self._least} bytes a second; send it over a faster connection.", field="chunk"
        )
