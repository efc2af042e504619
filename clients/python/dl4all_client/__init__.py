"""Python SDK of DL4ALL Serving.

from dl4all_client import DiagnosisClient

with DiagnosisClient("localhost:50051") as client:
diagnosis = client.diagnose(open("smear.jpg", "rb").read())
print(client.finding_name(diagnosis))
"""

from dl4all_client.channel import Tls
from dl4all_client.client import AsyncDiagnosisClient, DiagnosisClient
from dl4all_client.errors import ServiceError

__all__ = ["AsyncDiagnosisClient", "DiagnosisClient", "ServiceError", "Tls"]
