"""Which engine the settings open, and the role that it plays."""

from __future__ import annotations

import pytest

from services.classification.settings import ClassificationSettings
from services.common.engines.opening import open_engine
from services.common.errors import ConfigurationError
from services.common.releases import ReleaseStore, Role
from services.common.settings import CommonSettings, TlsSettings
from services.common.workers import Workers

NETWORK = ReleaseStore(CommonSettings().releases, CommonSettings().model_repository).held("dss-1").network


@pytest.mark.parametrize(("engine", "device"), [("onnxruntime", Role.CPU), ("triton", Role.CPU), ("triton", Role.GPU)])
async def test_an_engine_serves_the_file_of_its_role(engine: str, device: Role) -> None:
    workers = Workers(1)
    opened = open_engine(ClassificationSettings(engine=engine, device=device), CommonSettings(), TlsSettings(), workers)  # type: ignore[arg-type]
    try:
        assert (opened.name, opened.role) == (engine, device)
        assert opened.served_sha256(NETWORK) == NETWORK.files[device].sha256
        assert NETWORK.files[Role.CPU].sha256 != NETWORK.files[Role.GPU].sha256, "else this shows nothing"
    finally:
        await opened.close()
        workers.close()


def test_a_gpu_that_is_not_there_is_said_at_the_start() -> None:
    workers = Workers(1)
    with pytest.raises(ConfigurationError) as caught:
        open_engine(ClassificationSettings(device=Role.GPU), CommonSettings(), TlsSettings(), workers)
    assert caught.value.reason == "GPU_UNAVAILABLE"
    workers.close()
