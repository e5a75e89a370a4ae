# A bundle behind OpenAI's API, run by nobody in particular:
#   docker build --tag edgedistill .
#   docker run --rm --publish 127.0.0.1:8080:8080 --env EDGEDISTILL_API_KEY=secret --volume "$PWD/my-bundle:/bundle:ro" edgedistill
FROM python:3.12-slim AS build
WORKDIR /src
COPY . .
# The versions that the tests run with, and nothing that only an export needs.
RUN python -m venv /opt/edgedistill \
    && /opt/edgedistill/bin/pip install --no-cache-dir --constraint constraints.txt '.[server,structured]'

FROM python:3.12-slim
RUN useradd --uid 10001 --create-home --home-dir /srv/edgedistill edgedistill
COPY --from=build /opt/edgedistill /opt/edgedistill
ENV PATH=/opt/edgedistill/bin:$PATH \
    HF_HUB_OFFLINE=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /srv/edgedistill
EXPOSE 8080
HEALTHCHECK --start-period=60s --interval=30s --timeout=5s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health', timeout=4)"]
ENTRYPOINT ["edgedistill"]
CMD ["serve", "/bundle", "--host", "0.0.0.0"]
