#!/bin/sh
# Brings what answers rows where a file will run into .verifiers/: make verifiers [PYTHON=python3.12].
#
# Each part is made aside and then renamed, with the recipe that made it in `made-from`: what is there is
# whole, and what is of another recipe is made anew. Root is needed for Chromium alone. A part that cannot be had is
# named at the end, with exit code 1; the others are there all the same.
set -u
python=${1:-python3}
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)/.verifiers
missing=""

# 1.28 and later crash at import under qemu 7.2, Debian 12's.
ARM64_PACKAGES="onnxruntime==1.27.0 numpy==2.4.6"
# The oldest that targets promise; built against numpy 1, beside which it has to be.
OLDEST_PACKAGES="onnxruntime==1.17.3 numpy==1.26.4"
# A grammar of Swift: the sample for iOS is read by it, where nothing can build it.
PARSER_PACKAGES="tree-sitter==0.26.1 tree-sitter-swift==0.7.4"
QUICKLY="-o Acquire::Retries=1 -o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30"

mkdir -p "$root"
# One at a time: a second one waits, and then finds all there.
if command -v flock > /dev/null; then exec 9> "$root/.lock" && flock 9; fi
rm -rf "$root"/.*.partial

# part NAME RECIPE COMMAND...: fill an empty folder by a command, unless it was filled by the same recipe.
part() {
    name=$1 recipe=$2
    shift 2
    if [ "$(cat "$root/$name/made-from" 2>/dev/null)" = "$recipe" ]; then
        return
    fi
    draft="$root/.$name.partial"
    mkdir "$draft"
    if "$@" "$draft" > "$root/$name.log" 2>&1 && printf '%s\n' "$recipe" > "$draft/made-from"; then
        rm -rf "${root:?}/$name" && mv "$draft" "$root/$name" && rm "$root/$name.log"
    else
        missing="$missing
  $name: $(tail -n 1 "$root/$name.log") (all of it in .verifiers/$name.log)"
        rm -rf "$draft"
    fi
}

# An apt of its own: another architecture than the machine's, and nothing of the machine's is changed.
apt_aside() {
    state=$1 architecture=$2
    shift 2
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial" && : > "$state/status"
    # shellcheck disable=SC2086 # words
    set -- -o Dir::State="$state" -o Dir::State::lists="$state/lists" -o Dir::State::status="$state/status" \
        -o Dir::Cache="$state/cache" -o APT::Architecture="$architecture" \
        -o APT::Architectures="$architecture" -o APT::Sandbox::User="$(id -un)" $QUICKLY -qq "$@"
    apt-get "$@"
}

# unpack ARCHITECTURE PACKAGES FOLDER: with all that they depend on, without installing them.
unpack() {
    architecture=$1 packages=$2 folder=$3
    state=$(mktemp -d) || return
    # shellcheck disable=SC2086 # words
    apt_aside "$state" "$architecture" update &&
        apt_aside "$state" "$architecture" --yes --no-install-recommends --download-only install $packages &&
        for archive in "$state"/cache/archives/*.deb; do dpkg -x "$archive" "$folder" || return; done
    status=$?
    rm -rf "$state"
    return $status
}

emulators() {
    unpack "$(dpkg --print-architecture)" qemu-user-static "$1/unpacked" &&
        mv "$1/unpacked/usr/bin/qemu-aarch64-static" "$1/unpacked/usr/bin/qemu-x86_64-static" "$1" &&
        rm -rf "$1/unpacked" && "$1/qemu-aarch64-static" --version
}

arm64_python() {
    unpack arm64 "python3.11 libstdc++6" "$1/root" &&
        arm64_wheels "$ARM64_PACKAGES" "$1/packages" && arm64_wheels "$OLDEST_PACKAGES" "$1/oldest"
}

arm64_wheels() {
    wheels "$1" "$2" --python-version 3.11 --platform manylinux_2_28_aarch64 \
        --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64
}

# wheels PACKAGES FOLDER OPTIONS...: unpacked, beside no other package.
wheels() {
    packages=$1 folder=$2
    shift 2
    # shellcheck disable=SC2086 # words
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --no-compile --timeout 30 --retries 1 --target "$folder" "$@" $packages
}

oldest_runtime() {
    wheels "$OLDEST_PACKAGES" "$1/packages"
}

parsers() {
    wheels "$PARSER_PACKAGES" "$1/packages"
}

# Android's own org.json, which the sample for Android reads a manifest with.
android_json() {
    unpack "$(dpkg --print-architecture)" libandroid-json-java "$1/unpacked" &&
        cp -L "$1/unpacked/usr/share/java/com.android.json.jar" "$1" && rm -rf "$1/unpacked"
}

node_packages() {
    cp "$here/package.json" "$here/package-lock.json" "$1" &&
        npm ci --prefix "$1" --ignore-scripts --no-audit --no-fund --fetch-timeout=60000 --fetch-retries=1
}

# The machine's, since it needs the machine's libraries.
chromium() {
    for name in chromium chromium-browser google-chrome; do
        command -v "$name" > /dev/null && return
    done
    if [ "$(id -u)" != 0 ]; then
        echo "apt-get install needs root; or install a Chromium yourself"
        return 1
    fi
    # shellcheck disable=SC2086 # words
    apt-get $QUICKLY -qq update && DEBIAN_FRONTEND=noninteractive \
        apt-get $QUICKLY -qq --yes --no-install-recommends install chromium
}

tag=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
part emulators "qemu-user-static, by Debian" emulators
part arm64 "python3.11, $ARM64_PACKAGES, $OLDEST_PACKAGES" arm64_python
part oldest "$tag, $OLDEST_PACKAGES" oldest_runtime
part parsers "$tag, $PARSER_PACKAGES" parsers
part android-json "libandroid-json-java, by Debian" android_json
part node "package-lock.json $(cksum < "$here/package-lock.json")" node_packages
[ ! -d "$root/node" ] || ln -sfn node/node_modules "$root/node_modules"
if ! chromium > "$root/chromium.log" 2>&1; then
    missing="$missing
  chromium: $(tail -n 1 "$root/chromium.log")"
else
    rm "$root/chromium.log"
fi

if [ -n "$missing" ]; then
    echo "make verifiers: these are not at hand, and nothing will be verified on them:$missing" >&2
    exit 1
fi
