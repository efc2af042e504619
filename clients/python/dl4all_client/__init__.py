"""Python SDK of DL4ALL Serving.

Diagnose one image::

    from pathlib import Path

    from dl4all_client import DiagnosisClient, finding_name

    with DiagnosisClient("localhost:50051") as client:
        diagnosis = client.diagnose(Path("smear.jpg").read_bytes())
    print(finding_name(diagnosis.finding), list(diagnosis.reasons))

``AsyncDiagnosisClient`` does the same for asyncio.
"""

from dl4all_client.aio import AsyncDiagnosisClient
from dl4all_client.channel import Tls
from dl4all_client.client import DiagnosisClient
from dl4all_client.errors import ServiceError
from dl4all_client.requests import DiagnoseOptions, ImageOptions, Kind, Reference, SlideOptions, diagnose_request, finding_name

__all__ = [
    "AsyncDiagnosisClient",
    "DiagnoseOptions",
    "DiagnosisClient",
    "ImageOptions",
    "Kind",
    "Reference",
    "ServiceError",
    "SlideOptions",
    "Tls",
    "diagnose_request",
    "finding_name",
]
