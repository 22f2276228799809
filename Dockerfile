# syntax=docker/dockerfile:1
# One image for both daemons and ccctl.
#   control plane: docker run --network host -v controlplane:/var/lib/controlplane IMAGE
#   node agent:    docker run --user 0 --network host --pid host --gpus all --no-healthcheck \
#                      -v /var/lib/nodeagent:/var/lib/nodeagent IMAGE nodeagent run --run-as agent …
#   ccctl:         docker run --rm --network host --no-healthcheck IMAGE ccctl list
# A job runs in the container of its agent, and ends with it: build an image on this one with the
# frameworks that jobs need, and prefer systemd/nodeagent.service where jobs must outlive an upgrade.
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
WORKDIR /src
RUN python -m venv /opt/controlplane
# What is depended on changes seldom, and keeps a layer of its own.
COPY pyproject.toml ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
        print(*p['dependencies'], *p['optional-dependencies']['postgresql'], sep='\n')" \
        > requirements.txt \
    && /opt/controlplane/bin/pip install --no-cache-dir -r requirements.txt
COPY LICENSE README.md ./
COPY controlplane ./controlplane
COPY nodeagent ./nodeagent
RUN /opt/controlplane/bin/pip install --no-cache-dir --no-deps .

FROM python:${PYTHON}
# A number that is the same in every image, so that volumes keep their owner.
RUN groupadd --system --gid 760 controlplane \
    && useradd --system --uid 760 --gid 760 --no-create-home --home-dir /var/lib/controlplane controlplane \
    && install --directory --owner=controlplane --group=controlplane --mode=0700 /var/lib/controlplane
COPY --from=build /opt/controlplane /opt/controlplane
ENV PATH=/opt/controlplane/bin:$PATH \
    PYTHONUNBUFFERED=1
USER 760:760
WORKDIR /var/lib/controlplane
VOLUME /var/lib/controlplane
EXPOSE 7600 7601
STOPSIGNAL SIGTERM
# The way that every client takes.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["ccctl", "--ca-file", "/var/lib/controlplane/pki/ca.crt", "--token-file", "/var/lib/controlplane/admin.token", "--timeout", "4", "version", "--remote"]
# `init` makes the authority and the administrator's token at the first start, and keeps them at all others.
CMD ["sh", "-c", "controlplane init && exec controlplane serve"]
