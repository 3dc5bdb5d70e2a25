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
    print(*project['project']['optional-dependencies']['docs'], sep='\n', file=open('docs.txt', 'w')); \
    print(*project['build-system']['requires'], sep='\n', file=open('build.txt', 'w'))"

# The package, installed as from a wheel. It has metadata, from which the API reads its version, and compiled
# bytecode, which a read-only container could not write. The build tool stays in this stage.
FROM base AS package
COPY constraints.txt ./
COPY --from=requirements /app/build.txt ./
RUN pip install -c constraints.txt -r build.txt
COPY . .
RUN pip install --no-deps --no-build-isolation --prefix=/package .

# Everything that the API and the worker need to run. Layers that change rarely come first. torch is by far the largest,
# so it has a separate layer. Without TORCH_INDEX pip installs the build of PyPI, which brings gigabytes of CUDA. With
#   TORCH_INDEX=https://download.pytorch.org/whl/cpu
# pip prefers 2.13.0+cpu, about 200 MB, as the newer version. It looks for no other package on that index.
FROM base AS run
# A fixed id, so that the volume still belongs to this user after a rebuild. The user has no shell and no home.
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
# by number: a host that forbids root (runAsNonRoot of Kubernetes) cannot resolve a name
USER 10001:10001
