# Machines without a GPU (`prepare`, evaluation, small runs): the same, with PyTorch's wheel without CUDA. From the repository's root:
#   docker build --file infra/docker/cpu.Dockerfile --tag fbm-dist:cpu .
#   docker run --volume DIR:/data fbm-dist:cpu data_tools prepare configs/prepare/default.yaml input=/data/films output=/data/shards
FROM python:3.12.13-slim-trixie AS packages

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# gcc: DeepSpeed comes as source
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install --yes --no-install-recommends gcc libc6-dev \
  && rm -rf /var/lib/apt/lists/* \
  && python -m venv /opt/venv
# Where PyTorch keeps its wheels without CUDA: 5 GB less. Another mirror: --build-arg TORCH_INDEX=...
ARG TORCH_INDEX
# The packages before the source: a changed line of code rebuilds no layer of gigabytes. They are read from pyproject.toml.
COPY constraints.txt pyproject.toml infra/docker/requirements.sh /tmp/build/
RUN bash /tmp/build/requirements.sh /tmp/build/pyproject.toml s3 kubernetes >/tmp/build/requirements.txt \
  && if [ -n "$TORCH_INDEX" ]; then \
       /opt/venv/bin/pip install --index-url "$TORCH_INDEX" "$(grep '^torch==' /tmp/build/constraints.txt)"; \
     fi \
  && /opt/venv/bin/pip install --constraint /tmp/build/constraints.txt --requirement /tmp/build/requirements.txt

FROM python:3.12.13-slim-trixie

# wget: KubeRay's probes call it
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install --yes --no-install-recommends tini wget \
  && rm -rf /var/lib/apt/lists/* \
  && useradd --uid 10001 --create-home --shell /bin/bash fbm \
  && install --directory --owner 10001 --group 10001 /data
COPY --from=packages /opt/venv /opt/venv
COPY pyproject.toml constraints.txt README.md LICENSE /opt/fbm/
COPY configs /opt/fbm/configs
COPY launch /opt/fbm/launch
COPY infra/docker/entry.sh infra/docker/health.sh /opt/fbm/infra/docker/
COPY data_tools /opt/fbm/data_tools
COPY fbm_dist /opt/fbm/fbm_dist

ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/opt/fbm PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TQDM_DISABLE=1 DS_ACCELERATOR=cpu
USER 10001:10001
WORKDIR /opt/fbm
HEALTHCHECK --interval=60s --timeout=20s --start-period=60s --retries=3 CMD ["bash", "infra/docker/health.sh"]
ENTRYPOINT ["tini", "--", "bash", "infra/docker/entry.sh"]
CMD ["help"]
