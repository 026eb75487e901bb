# Headrace in a container that answers from outside.
#
#   docker build -t headrace .
#   docker run -p 8080:8080 -e GEN_GATEWAY_API_KEYS=choose-one headrace
#
# Keys must be given: inside a container the gateway listens on every address, and it refuses to do so while the
# built-in `dev-key` is the only one. Without more it serves the mock backend; to configure it, mount TOML files
# beside /etc/headrace/container.toml (all of them are merged, in name order) or set GEN_GATEWAY__* variables.
# Stop it with `docker stop -t 310`: streams have up to server.drain_timeout (300 s) to end.

# The whole image: it has the C compiler that the hot path is compiled with.
FROM python:3.13-bookworm AS build
WORKDIR /src
COPY pyproject.toml setup.cfg setup.py README.md LICENSE ./
COPY gateway gateway
COPY protocols protocols
RUN HEADRACE_COMPILE=1 pip wheel --no-cache-dir --wheel-dir /wheels .

FROM python:3.13-slim-bookworm
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --no-index --find-links /wheels headrace && rm -r /wheels \
    && headrace --version | grep -F "(compiled)"
COPY conf/container.toml /etc/headrace/container.toml
# A number, so that an orchestrator can see that it is not root.
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["python", "-c", "import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open('http://127.0.0.1:' + os.environ.get('GEN_GATEWAY__SERVER__PORT', '8080') + '/health/live', timeout=2)"]
CMD ["headrace", "serve", "-c", "/etc/headrace"]
