# docker build -t rwml-gym . && docker run --rm -v "$PWD/runs:/rwml-gym/runs" rwml-gym
# Installs what `make demo` installs, with the versions of constraints.txt; the container runs the demo.
FROM python:3.11-slim

# ALFWorld's engine and TextWorld's parsers are built from source.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential cmake \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /rwml-gym
COPY . .
RUN make .venv/installed

# Results are in runs/demo; started again with the same folder, the demo goes on from its last checkpoint.
CMD ["make", "demo"]
