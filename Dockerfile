# Image that runs on processors: docker build -t dexgrasp . && docker run --rm -v "$PWD/runs:/data/runs" dexgrasp
FROM python:3.12-slim

RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri libosmesa6 libusb-1.0-0 \
 && rm -rf /var/lib/apt/lists/*
COPY . /src
# --build-arg PIP_EXTRA_INDEX_URL=... names a package index with builds of torch without CUDA: a smaller image.
ARG PIP_EXTRA_INDEX_URL
RUN pip install --no-cache-dir --constraint /src/constraints.txt "/src[export,viz]"
WORKDIR /data
ENTRYPOINT ["dexgrasp"]
CMD ["demo"]
