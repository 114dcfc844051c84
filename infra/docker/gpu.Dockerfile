# GPU nodes: everything of the project with CUDA from PyPI's wheels; the driver comes from the machine. From the repository's root:
#   docker build --file infra/docker/gpu.Dockerfile --tag fbm-dist:gpu .
#   docker run --gpus all --shm-size 8g --volume DIR:/data fbm-dist:gpu pretrain configs/pretrain/fbm.yaml data.path=/data/shards run.folder=/data/run
# A slim Python is enough as the base: torch and DALI bring CUDA's libraries, and an image of NVIDIA's would bring them a second time.
FROM python:3.12.13-slim-trixie AS packages

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# gcc: DeepSpeed comes as source.
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install --yes --no-install-recommends gcc libc6-dev \
  && rm -rf /var/lib/apt/lists/* \
  && python -m venv /opt/venv
# The packages before the source: a changed line of code rebuilds no layer of gigabytes. They are read from pyproject.toml.
COPY constraints.txt pyproject.toml infra/docker/requirements.sh /tmp/build/
RUN bash /tmp/build/requirements.sh /tmp/build/pyproject.toml s3 kubernetes >/tmp/build/requirements.txt \
  && /opt/venv/bin/pip install --constraint /tmp/build/constraints.txt --requirement /tmp/build/requirements.txt

FROM python:3.12.13-slim-trixie

# gcc: Triton compiles what a GPU needs at run time. wget: KubeRay's probes call it. There is no ssh: ranks need no launcher here.
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install --yes --no-install-recommends gcc libc6-dev tini wget \
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

# video: without it the container has no NVDEC, and clips are decoded on processors
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/opt/fbm PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TQDM_DISABLE=1 \
  NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
USER 10001:10001
WORKDIR /opt/fbm
HEALTHCHECK --interval=60s --timeout=20s --start-period=300s --retries=3 CMD ["bash", "infra/docker/health.sh"]
ENTRYPOINT ["tini", "--", "bash", "infra/docker/entry.sh"]
CMD ["help"]
