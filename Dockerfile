# The image of `ottoscaler serve`. Every step is in exec form and needs no shell; tests/deploy/test_image.py reads this file and runs them.
ARG PYTHON=python:3.13-slim

FROM ${PYTHON} AS build
WORKDIR /src
COPY deploy/build.lock deploy/requirements.lock deploy/
RUN ["python", "-m", "venv", "--without-pip", "/opt/ottoscaler"]
RUN ["python", "-m", "pip", "--python", "/opt/ottoscaler", "install", "--no-compile", "--only-binary=:all:", "--require-hashes", "--requirement", "deploy/requirements.lock"]
RUN ["python", "-m", "venv", "--without-pip", "/opt/build"]
RUN ["python", "-m", "pip", "--python", "/opt/build", "install", "--no-compile", "--only-binary=:all:", "--require-hashes", "--requirement", "deploy/build.lock"]
COPY pyproject.toml README.md LICENSE ./
COPY ottoscaler ottoscaler
RUN ["python", "-m", "pip", "--python", "/opt/build", "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", "/wheels", "."]
RUN ["python", "-m", "pip", "--python", "/opt/ottoscaler", "install", "--no-compile", "--no-deps", "--no-index", "/wheels/ottoscaler-0.1.0-py3-none-any.whl"]
# bytecode that is never compared with its source: nothing can be written later, and without it the start takes 2 s instead of 0.6
RUN ["python", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "/opt/ottoscaler/lib"]

FROM ${PYTHON}
LABEL org.opencontainers.image.title="ottoscaler" \
      org.opencontainers.image.description="Turns an event into running Kubernetes worker pods, follows each to its end, cleans up, and neither loses nor repeats one." \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.documentation="docs/install.md"
# the base image has no bytecode of the standard library
RUN ["python", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-x", "/(test|tests|idlelib|turtledemo|lib2to3|ensurepip|site-packages)/", "/usr/local/lib"]
COPY --from=build /opt/ottoscaler /opt/ottoscaler
ENV PATH="/opt/ottoscaler/bin:/usr/local/bin:/usr/bin:/bin" \
    PYTHONDONTWRITEBYTECODE="1" \
    PYTHONUNBUFFERED="1"
USER 65532:65532
WORKDIR /
EXPOSE 8080 9090
ENTRYPOINT ["ottoscaler"]
CMD ["serve"]
