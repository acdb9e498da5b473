# The worker's image.
#
#   docker build -t greentic-worker .
#
# BUILDER_IMAGE, RUNTIME_IMAGE: other images to build in and to lay the worker on. The second needs glibc of Debian 12 or
# later, and bash if the health check below is used.
# PREBUILT: an executable under dist/ that is taken in place of building one (`scripts/images.sh worker` does that).
ARG BUILDER_IMAGE=rust:1.95-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim

FROM ${BUILDER_IMAGE} AS builder
ARG PREBUILT=
WORKDIR /build
COPY . .
RUN if [ -n "$PREBUILT" ]; then cp "$PREBUILT" /greentic-worker; \
    else scripts/release.sh && cp target/release/greentic-worker /greentic-worker; fi
RUN mkdir /cache

FROM ${RUNTIME_IMAGE} AS worker
COPY --from=builder /greentic-worker /usr/local/bin/greentic-worker
# Of use to TLS only; the slim image comes without.
COPY --from=builder /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
WORKDIR /greentic
# All that the worker writes besides compiled components. A volume here lets parked conversations outlive the container under packs that are not bound
# any more.
COPY --from=builder --chown=65532:65532 /cache /greentic/cache
# Nobody in particular.
USER 65532:65532
ENV GREENTIC_WORKER__HTTP__LISTEN=0.0.0.0:8080 \
    GREENTIC_WORKER__LOG__FORMAT=json \
    GREENTIC_WORKER__PACKS__STORE=/greentic/packs \
    GREENTIC_WORKER__COMPONENTS__CACHE_DIR=/tmp/components \
    GREENTIC_WORKER__PACKS__CACHE_DIR=/greentic/cache/packs \
    GREENTIC_WORKER__BINDINGS_DIRS='["/greentic/bindings"]'
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /readyz HTTP/1.0\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [ \"$status\" = 200 ]"]
# SIGTERM drains within `worker.drain_timeout`.
STOPSIGNAL SIGTERM
ENTRYPOINT ["greentic-worker"]
CMD ["serve"]
