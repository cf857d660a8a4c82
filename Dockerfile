# smtpbench in a container.
#
#   docker build -t smtpbench .
#   docker run --rm --network host --read-only --tmpfs /tmp -v "$PWD/results:/results" --user "$(id -u):$(id -g)" \
#       smtpbench run relay --target smtp://127.0.0.1:2525 -r 200/s -d 30s
#
# The result of a run is in /results/<run>. Without --network host the server is on another machine: add --authorized.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY scenarios scenarios
COPY smtpbench smtpbench
RUN python -m venv /opt/smtpbench && /opt/smtpbench/bin/pip install --no-cache-dir ".[metrics]"

FROM python:${PYTHON}-slim
COPY --from=build /opt/smtpbench /opt/smtpbench
ENV PATH=/opt/smtpbench/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
RUN useradd --system --uid 10001 --no-create-home smtpbench && mkdir /results && chown smtpbench /results
USER smtpbench
# results/<run> is relative to this folder
WORKDIR /
VOLUME /results
ENTRYPOINT ["smtpbench"]
CMD ["--help"]
