# One image for the API, the worker and the migration; docker-compose.yml sets the command of each.
# It avoids heredocs, COPY --link and RUN --mount, so that engine 20.10 can build it with or without BuildKit.

FROM python:3.11-slim AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /app

# The requirements, extracted into files. Docker caches a copied file by its content, so an edit of pyproject.toml that
# does not change the requirements (a linter rule, the version) installs nothing again.
FROM base AS requirements
COPY pyproject.toml ./
# With the extra for S3 (35 MB), so that the environment can choose S3 without another build.
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb')); \
    extra = project['project']['optional-dependencies']['s3']; \
    print(*project['project']['dependencies'], *extra, sep='\n', file=open('run.txt', 'w')); \
    print(*project['build-system']['requires'], sep='\n', file=open('build.txt', 'w'))"

# The package, installed as from a wheel. It has metadata, from which the API reads its version, and compiled
# bytecode, which a read-only container could not write. The build tool stays in this stage.
FROM base AS package
COPY constraints.txt ./
COPY --from=requirements /app/build.txt ./
RUN pip install -c constraints.txt -r build.txt
COPY . .
RUN pip install --no-deps --no-build-isolation --prefix=/package .

FROM base
# A fixed number, so that the volume still belongs to this user after a rebuild. It has no shell and no home of its own.
RUN groupadd --gid 10001 chiffre \
 && useradd --uid 10001 --gid chiffre --no-create-home --home-dir /tmp --shell /usr/sbin/nologin chiffre \
 && install -d -o chiffre -g chiffre -m 750 /var/lib/chiffre /var/lib/chiffre/artifacts /var/lib/chiffre/cache

# The layers go from what changes least to what changes most. torch is by far the largest, hence alone: without
# TORCH_INDEX it is PyPI's build, which brings gigabytes of CUDA. With
#   TORCH_INDEX=https://download.pytorch.org/whl/cpu
# pip prefers 2.13.0+cpu, about 200 MB, as a newer 2.13.0. No other package is looked for on that index.
ARG TORCH_INDEX=""
COPY constraints.txt ./
RUN pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -c constraints.txt torch==2.13.0
COPY --from=requirements /app/run.txt ./
RUN pip install -c constraints.txt -r run.txt

COPY --from=package /package /usr/local

ENV CHIFFRE_HOME=/var/lib/chiffre
# by number: a host that forbids root (runAsNonRoot of Kubernetes) cannot resolve a name
USER 10001:10001
