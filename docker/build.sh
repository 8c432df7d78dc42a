#!/usr/bin/env bash
# Build the image by buildah, which needs root but no service.
#   docker/build.sh [ARGUMENT OF buildah ...]     as --build-arg BASE_IMAGE=..., --volume ..., --env ...
# Without a BASE_IMAGE the base is made of Debian's packages by debootstrap.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' orchestrator/__init__.py)
base=()
if [[ "$*" != *BASE_IMAGE=* ]]; then
    if ! buildah inspect --type image orchestrator-base >/dev/null 2>&1; then
        folder=$(mktemp -d)
        trap 'rm -rf "$folder"' EXIT
        debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$folder"
        container=$(buildah from scratch)
        buildah add --quiet "$container" "$folder" /
        buildah commit --quiet --rm "$container" orchestrator-base
    fi
    base=(--build-arg BASE_IMAGE=localhost/orchestrator-base)
fi
buildah build --isolation chroot --format docker --file docker/Dockerfile \
    --ignorefile docker/Dockerfile.dockerignore --tag "orchestrator:$version" \
    "${base[@]}" "$@" .
