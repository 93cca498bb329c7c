# The images of `make images`, for those who have Docker:
#   docker build --target trefoil-node -t trefoil.dev/trefoil-node:0.1.0 .
# One static program each, FROM scratch: no shell, no libc; the root file system can be read-only. Users are numbers.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --bins \
    && mkdir -p /out /empty \
    && for name in control-plane node sidecar waypoint cni; do \
         strip -o "/out/trefoil-$name" "target/x86_64-unknown-linux-gnu/release/trefoil-$name" || exit 1; \
       done

FROM scratch AS trefoil-control-plane
COPY --from=build /out/trefoil-control-plane /
COPY --from=build /empty /tmp
USER 15000:15000
ENTRYPOINT ["/trefoil-control-plane"]

FROM scratch AS trefoil-sidecar
COPY --from=build /out/trefoil-sidecar /
COPY --from=build /empty /tmp
USER 15008:15008
ENTRYPOINT ["/trefoil-sidecar"]

FROM scratch AS trefoil-waypoint
COPY --from=build /out/trefoil-waypoint /
COPY --from=build /empty /tmp
USER 15009:15009
ENTRYPOINT ["/trefoil-waypoint"]

# Root, with the capabilities that the chart gives it: its workers have users of their own and no capability.
FROM scratch AS trefoil-node
COPY --from=build /out/trefoil-node /
COPY --from=build /empty /tmp
USER 0:0
ENTRYPOINT ["/trefoil-node"]

# Root of the host, in effect: it enters pods' network namespaces and writes the CNI configuration.
FROM scratch AS trefoil-cni
COPY --from=build /out/trefoil-cni /
COPY --from=build /empty /tmp
USER 0:0
ENTRYPOINT ["/trefoil-cni"]
