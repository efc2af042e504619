"""How many images are under way at once: one more for each window of successes, half after a refusal."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

FIRST: Final = 4.0
"""Images under way at the start."""
MOST: Final = 64.0


@dataclass
class Window:
    """Additive increase, multiplicative decrease.

    Attributes:
        most: images under way at most.
        limit: images under way at most at present, at least 1.
        under_way: images that are under way.
    """

    most: float = MOST
    limit: float = FIRST
    under_way: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _sent: int = 0
    _halved_at: int = 0

    def __post_init__(self) -> None:
        self.limit = min(self.limit, self.most)

    @property
    def room(self) -> int:
        """Images that may be sent now."""
        return max(0, int(self.limit) - self.under_way)

    async def enter(self) -> int:
        """Wait for room.

        Returns:
            Number of this image among all that were sent.
        """
        while not self.room:
            self._changed.clear()
            await self._changed.wait()
        self.under_way += 1
        self._sent += 1
        return self._sent

    def leave(self) -> None:
        """An image is no longer under way."""
        self.under_way -= 1
        self._changed.set()

    def succeeded(self) -> None:
        """An image was answered while the window was in use."""
        if self.under_way >= int(self.limit):
            self.limit = min(self.most, self.limit + 1.0 / self.limit)
            self._changed.set()

    def refused(self, number: int) -> None:
        """An image was refused because the service has too much work. Images that were sent before the last halving do not halve again.

        Args:
            number: of the image, from ``enter``.
        """
        if number > self._halved_at:
            self.limit = max(1.0, self.limit / 2.0)
            self._halved_at = self._sent
