"""What a service that runs models needs: that the engine has the models of the releases."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from services.common.engines.base import InferenceEngine
from services.common.health import Needs
from services.common.releases import Model, Release, ReleaseStore


def needs_of_models(store: ReleaseStore, engine: InferenceEngine, models_of: Callable[[Release], Iterable[Model]]) -> Needs:
    """Needs by ``<model>/<version>``; releases that were added since are taken in first.

    Args:
        store: the releases.
        engine: that runs the models.
        models_of: the models of a release that this service runs; none where it needs none.
    """
    store.take_in()
    by_release = {release.id: tuple(models_of(release)) for release in store.releases}
    models = {_name(model): model for found in by_release.values() for model in found}
    probes: dict[str, Callable[[], Awaitable[bool]]] = {name: partial(engine.is_ready, model) for name, model in models.items()}
    releases = {release: sorted({_name(model) for model in found}) for release, found in by_release.items()}
    return Needs(probes, releases, store.index.default, tuple(models))


def _name(model: Model) -> str:
    return f"{model.model}/{model.version}"
