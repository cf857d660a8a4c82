# smtpbench in a container.
#
#   docker build -t smtpbench .
#   docker run --rm --network host --read-only --tmpfs /tmp -v "$PWD/results:/results" --user "$(id -u):$(id -g)" \
#       smtpbench run relay --target smtp://127.0.0.1:2525 -r 200/s -d 30s
#
# A run's folder is /results/<run>. Without --network host every other container is another machine: say --authorized.
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
# relative to this folder, a run's own is results/<run>
WORKDIR /
VOLUME /results
ENTRYPOINT ["smtpbench"]
CMD ["--help"]
