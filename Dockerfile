# The service, without development tools. `docker build -t godoty .`

FROM python:3.11-slim-bookworm AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/godoty
ENV PATH=/opt/godoty/bin:$PATH
WORKDIR /src

# What changes least comes first, so that an edit of ours leaves the dependencies' layer alone.
COPY requirements.txt requirements-build.txt ./
RUN pip install --require-hashes --requirement requirements.txt
# What builds our own packages stays out of the image.
RUN python -m venv /opt/build && /opt/build/bin/pip install --require-hashes --requirement requirements-build.txt

COPY clients/python clients/python
COPY pyproject.toml README.md ./
COPY godoty_service godoty_service
COPY openrouter_sandbox openrouter_sandbox
# Everything they need is pinned above: --no-deps keeps pip from adding to it, and check says if it is not enough.
# --no-build-isolation: what builds them is pinned, too.
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /opt/wheels ./clients/python . \
    && pip install --no-deps --no-build-isolation /opt/wheels/*.whl && pip check && pip uninstall --yes pip setuptools


FROM python:3.11-slim-bookworm

# By number, so that Kubernetes can see that it is not root.
RUN groupadd --gid 10001 godoty && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin godoty
COPY --from=build /opt/godoty /opt/godoty

# A container listens on its network, so the service starts only with TLS: mount a certificate and name it in
# GODOTY_TLS_CERT and GODOTY_TLS_KEY (and GODOTY_TLS_CLIENT_CA for mTLS). Where a mesh or an ingress beside it speaks
# TLS, say GODOTY_ALLOW_PLAINTEXT=true. The image does not say it: API keys would cross the network in the clear
# wherever somebody forgot, and nobody would see.
# The image is compiled already and its user may write nowhere but in /tmp, where several workers (GODOTY_WORKERS) keep
# their metrics: mount something there if the root file system is read-only. _created series would double Prometheus'
# work.
ENV PATH=/opt/godoty/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PROMETHEUS_DISABLE_CREATED_SERIES=true \
    GODOTY_LISTEN=0.0.0.0:50051 \
    GODOTY_METRICS_LISTEN=0.0.0.0:9464
USER 10001:10001
WORKDIR /opt/godoty

EXPOSE 50051 9464
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["godoty", "health"]

# Exec form: the service is process 1 and gets SIGTERM itself. Give it more time than GODOTY_DRAIN_GRACE to stop.
ENTRYPOINT ["godoty"]
CMD ["serve"]
