"""Variables that are credentials, by their names or by what they hold."""

from __future__ import annotations

CREDENTIALS = {
    "AWS_SECRET_ACCESS_KEY": "x",
    "AWS_ACCESS_KEY_ID": "x",
    "AWS_SHARED_CREDENTIALS_FILE": "/x",
    "AZURE_STORAGE_ACCOUNT_KEY": "x",
    "AZURE_STORAGE_CONNECTION_STRING": "x",
    "AZURE_STORAGE_SAS_TOKEN": "x",
    "FSSPEC_S3": '{"key": "x", "endpoint_url": "http://h"}',
    "FSSPEC_ABFS": "{'account_key': 'x'}",
    "GOOGLE_APPLICATION_CREDENTIALS": "/x.json",
    "HF_TOKEN": "x",
    "MLFLOW_TRACKING_URI": "https://ann:pw@host",
    "ORCHESTRATOR_DATABASE": "postgresql://ann@host/n?password=x",
    "OTEL_EXPORTER_OTLP_HEADERS": "x",
    "OTEL_RESOURCE_ATTRIBUTES": "authorization=Bearer x",
    "OF_A_STORAGE": "DefaultEndpointsProtocol=https;AccountName=n;AccountKey=/Eby8==",
    "OF_A_SERVER": "host=h password=x",
    "PGPASSFILE": "/x",
    "PGPASSWORD": "x",
    "PGSSLKEY": "/x",
    "RAY_AUTH_TOKEN": "x",
    "RAY_AUTH_TOKEN_PATH": "/x",
    "auth_token": "x",
    "api_key": "x",
}
