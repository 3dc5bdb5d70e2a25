# One image for the API, the worker and the migration; docker-compose.yml says which command each runs.
# It needs no BuildKit: heredocs, COPY --link and RUN --mount are left out so that engine 20.10 builds it either way.

FROM python:3.11-slim AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /app

# The requirements as files of their own. What is copied from here is cached by content, so an edit of pyproject.toml
# that leaves the requirements alone (a linter's rule, the version) does not install anything again.
FROM base AS requirements
COPY pyproject.toml ./
# With the extra for S3, 35 MB: the environment then decides the place of artifacts, not the build.
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb')); \
    extra = project['project']['optional-dependencies']['s3']; \
    print(*project['project']['dependencies'], *extra, sep='\n', file=open('run.txt', 'w')); \
    print(*project['project']['optional-dependencies']['docs'], sep='\n', file=open('docs.txt', 'w')); \
    print(*project['build-system']['requires'], sep='\n', file=open('build.txt', 'w'))"

# The package, installed as from a wheel: with its metadata (the API shows its version) and compiled, which the
# read-only container could not do for itself. The build tool stays behind in this stage.
FROM base AS package
COPY constraints.txt ./
COPY --from=requirements /app/build.txt ./
RUN pip install -c constraints.txt -r build.txt
COPY . .
RUN pip install --no-deps --no-build-isolation --prefix=/package .

# What the API and the worker need to run. The layers go from what changes least to what changes most. torch is by far
# the largest, hence alone: without TORCH_INDEX it is PyPI's build, which brings gigabytes of CUDA. With
#   TORCH_INDEX=https://download.pytorch.org/whl/cpu
# pip prefers 2.13.0+cpu, about 200 MB, as a newer 2.13.0. No other package is looked for on that index.
FROM base AS run
# A fixed number, so that the volume still belongs to this user after a rebuild. It has no shell and no home of its own.
RUN groupadd --gid 10001 chiffre \
 && useradd --uid 10001 --gid chiffre --no-create-home --home-dir /tmp --shell /usr/sbin/nologin chiffre \
 && install -d -o chiffre -g chiffre -m 750 /var/lib/chiffre /var/lib/chiffre/artifacts /var/lib/chiffre/cache

ARG TORCH_INDEX=""
COPY constraints.txt ./
RUN pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -c constraints.txt torch==2.13.0
COPY --from=requirements /app/run.txt ./
RUN pip install -c constraints.txt -r run.txt

# The documentation, which the API serves at /help. Its reference is generated from the code, which must run for that.
FROM run AS documentation
COPY --from=requirements /app/docs.txt ./
RUN pip install -c constraints.txt -r docs.txt
COPY . .
COPY --from=package /package /usr/local
RUN python -m docs.generate && zensical build --strict

FROM run
COPY --from=package /package /usr/local
COPY --from=documentation /app/api/help /usr/local/lib/python3.11/site-packages/api/help

ENV CHIFFRE_HOME=/var/lib/chiffre
# by number: a host that forbids root (Kubernetes' runAsNonRoot) cannot look a name up
USER 10001:10001
