# The stages that need no torch: audit and report.
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE}

# A Debian base keeps its Python for itself unless told otherwise.
ARG PIP_BREAK_SYSTEM_PACKAGES=1

COPY requirements/data.txt /opt/ramflow/requirements/data.txt
RUN pip install --no-cache-dir --no-deps --requirement /opt/ramflow/requirements/data.txt

COPY pyproject.toml README.md LICENSE /opt/ramflow/
COPY ramflow /opt/ramflow/ramflow
RUN pip install --no-cache-dir --no-deps --no-build-isolation /opt/ramflow && rm -rf /opt/ramflow

ARG GIT_SHA=unknown
LABEL org.opencontainers.image.title="ramflow data" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${GIT_SHA}"

USER 10001:10001
ENV HOME=/tmp PYTHONUNBUFFERED=1
WORKDIR /ramflow
ENTRYPOINT ["ramflow"]
