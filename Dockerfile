# Builds everything that docker-compose.yaml runs, from this repository alone:
#   store      the `quiver` binary
#   grafana    Grafana with the plugin in it (unsigned, so it has to be allowed)
#   workload   the demo's services
# Nothing of it is needed without Docker: see `make demo`.

FROM rust:1.95-bookworm AS rust
RUN apt-get update && apt-get install -y --no-install-recommends musl-tools && rm -rf /var/lib/apt/lists/*
# Grafana's image has musl, so the plugin is linked statically against it.
RUN rustup target add "$(uname -m)-unknown-linux-musl"
WORKDIR /quiver
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY src src
COPY backend backend
# The manifest names the tests; they are not built here.
COPY tests/it tests/it
COPY tests/tidy.rs tests/tidy.rs
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/quiver/target \
    cargo build --release --locked --bin quiver \
    && cargo build --release --locked --package quiver-plugin --target "$(uname -m)-unknown-linux-musl" \
    && mkdir /out \
    && cp target/release/quiver /out/quiver \
    && case "$(uname -m)" in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; esac \
    && cp "target/$(uname -m)-unknown-linux-musl/release/gpx_quiver_logs" "/out/gpx_quiver_logs_linux_${arch}"

FROM node:22-bookworm AS frontend
WORKDIR /quiver/frontend
COPY frontend/package.json frontend/package-lock.json ./
RUN --mount=type=cache,target=/root/.npm npm ci
COPY plugin.json CHANGELOG.md LICENSE /quiver/
COPY docs/plugin.md /quiver/docs/plugin.md
COPY provisioning/dashboards /quiver/provisioning/dashboards
COPY frontend ./
RUN npm run build

FROM golang:1.26-bookworm AS go
WORKDIR /quiver/tests/host
COPY tests/host/go.mod tests/host/go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY tests/host ./
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 go build -o /out/workload ./cmd/workload

FROM debian:bookworm-slim AS store
RUN useradd --system --create-home --home-dir /data quiver
COPY --from=rust /out/quiver /usr/local/bin/quiver
USER quiver
VOLUME /data
EXPOSE 3100 4317
# In a container the ports are open to its network: set QUIVER_SERVER_AUTH_TOKENS where others share it.
ENTRYPOINT ["quiver"]
CMD ["serve", "--data-dir", "/data", "--http", "0.0.0.0:3100", "--grpc", "0.0.0.0:4317"]
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/3100 && printf 'GET /ready HTTP/1.0\\r\\n\\r\\n' >&3 && head -1 <&3 | grep -q ' 200 '"]

FROM grafana/grafana:12.3.0 AS grafana
COPY --from=frontend /quiver/dist /var/lib/grafana/plugins/quiver-logs-datasource
COPY --from=rust /out/gpx_quiver_logs_linux_* /var/lib/grafana/plugins/quiver-logs-datasource/

FROM gcr.io/distroless/static-debian12 AS workload
COPY --from=go /out/workload /workload
ENTRYPOINT ["/workload"]
